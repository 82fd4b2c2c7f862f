"""Configurations: presets, JSON, what is refused, and what "auto" stands for."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from agents.config import (
    DQNConfig,
    PPOConfig,
    PQNConfig,
    TrainConfig,
    read_config,
)
from agents.hyperparameters import Algorithm
from agents.presets import preset_config
from envs.errors import UserError
from envs.machine.cores import usable_cores
from rlcnn.accelerate import devices
from rlcnn.encoders import list_encoders
from rlcnn.runs.directory import RunDirectory
from rlcnn.supervised.config import PretrainConfig


def refused(said: str) -> Any:
    """That a line containing ``said`` (a pattern) is raised, and that it is one line."""
    return pytest.raises(UserError, match=rf"\A[^\n]*{said}[^\n]*\Z")


# -- presets ---------------------------------------------------------------------------------------


def test_zoo_ppo_is_rl_baselines3_zoos() -> None:
    config = preset_config("zoo", "ppo")
    assert config.resolve().ppo.batch_size == 256
    assert (config.total_steps, config.num_envs, config.frame_stack) == (10_000_000, 8, 4)
    assert config.ppo == PPOConfig(
        learning_rate=2.5e-4,
        learning_rate_schedule="linear",
        n_steps=128,
        batch_size=0,
        n_epochs=4,
        gamma=0.99,
        gae_lambda=0.95,
        clip_range=0.1,
        clip_range_schedule="linear",
        clip_range_vf=None,
        normalize_advantage=True,
        ent_coef=0.01,
        vf_coef=0.5,
        max_grad_norm=0.5,
        target_kl=None,
    )


def test_zoo_dqn_is_rl_baselines3_zoos() -> None:
    config = preset_config("zoo", "dqn")
    assert (config.total_steps, config.num_envs, config.frame_stack) == (10_000_000, 1, 4)
    assert config.dqn == DQNConfig(
        learning_rate=1e-4,
        learning_rate_schedule="constant",
        buffer_size=100_000,
        learning_starts=100_000,
        batch_size=32,
        tau=1.0,
        gamma=0.99,
        train_freq=4,
        gradient_steps=1,
        n_steps=1,
        target_update_interval=1_000,
        exploration_fraction=0.1,
        exploration_initial_eps=1.0,
        exploration_final_eps=0.01,
        max_grad_norm=10,
    )


def test_pqns_defaults_are_those_of_its_authors_for_atari() -> None:
    config = preset_config("zoo", "pqn").resolve()
    assert (config.num_envs, config.pqn.n_steps, config.pqn.n_epochs) == (128, 32, 2)
    assert config.num_envs * config.pqn.n_steps // config.pqn.batch_size == 32
    assert (config.pqn.q_lambda, config.pqn.gamma, config.pqn.learning_rate) == (0.65, 0.99, 2.5e-4)
    assert config.encoder_options == {"norm": "layer_channels"}


@pytest.mark.parametrize(
    ("changes", "options"),
    [
        ({"encoder": "impala"}, {"norm": "layer_channels"}),
        ({"encoder_options": {"norm": "layer"}}, {"norm": "layer"}),
        ({"encoder_options": {"norm": "none"}}, {"norm": "none"}),
        # Weights were trained without it.
        ({"weights": "encoder.safetensors"}, {"norm": "none"}),
        ({"encoder": "lenet"}, {}),
        ({"algo": "ppo"}, {}),
    ],
)
def test_pqn_normalises_by_layer_where_the_encoder_can(
    changes: dict[str, Any], options: dict[str, str]
) -> None:
    config = replace(TrainConfig(algo="pqn", device="cpu"), **changes).resolve()
    assert config.encoder_options == options
    notes = config.algorithm.notes_on_encoder(config.encoder, config.encoder_options)
    assert bool(notes) == (config.algo == "pqn" and options.get("norm", "none") == "none")


@pytest.mark.parametrize("algo", ["ppo", "dqn", "pqn"])
def test_a_note_says_that_dqn_keeps_the_statistics_of_pixels(algo: Algorithm) -> None:
    spec = TrainConfig(algo=algo).algorithm
    notes = spec.notes_on_encoder("nature", {"norm": "layer", "input_norm": "running"})
    assert [note.split(" of ")[0] for note in notes] == (
        ["DQN does not update the statistics"] if algo == "dqn" else []
    )
    assert not spec.notes_on_encoder("nature", {"norm": "layer"})


# -- JSON ------------------------------------------------------------------------------------------

ODD = TrainConfig(
    env="ALE/Breakout-v5",
    algo="dqn",
    encoder="impala",
    encoder_options={"width": 2, "pooling": "mean"},
    seed=7,
    ppo=PPOConfig(clip_range_vf=0.2, target_kl=0.03),
    dqn=DQNConfig(n_steps=3, tau=0.5),
)


@pytest.mark.parametrize("config", [TrainConfig(), ODD, preset_config("fast", "dqn")])
def test_a_configuration_survives_json(config: TrainConfig) -> None:
    assert TrainConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


def test_a_path_in_a_configuration_may_begin_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert TrainConfig.from_json({"weights": "~/w.pth"}).weights == "/home/me/w.pth"
    values = {"data": "folder:~/pictures", "data_dir": "~", "players": ["~/runs/a"]}
    pretraining = PretrainConfig.from_json(values)
    assert pretraining.data == "folder:/home/me/pictures"
    assert pretraining.data_dir == "/home/me"
    assert pretraining.players == ("/home/me/runs/a",)


def test_what_is_missing_takes_its_default_and_whole_numbers_do_for_fractions() -> None:
    config = TrainConfig.from_json({"seed": 3, "ppo": {"learning_rate": 1}, "dqn": {}})
    assert config == TrainConfig(seed=3, ppo=PPOConfig(learning_rate=1))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"num_env": 4}, r'unknown option "num_env" .* Did you mean "num_envs"\?'),
        ({"ppo": {"lr": 1e-3}}, 'unknown option "ppo.lr" in the configuration'),
        ({"dqn": {"tua": 1.0}}, r'unknown option "dqn.tua" .* Did you mean "tau"\?'),
        ({"seed": "3"}, "option seed in the configuration must be int, not '3'"),
        ({"seed": 3.0}, "option seed in the configuration must be int, not 3.0"),
        ({"seed": True}, "option seed in the configuration must be int, not True"),
        ({"save_replay": 1}, "option save_replay in the configuration must be bool, not 1"),
        ({"env": None}, "option env in the configuration must be str, not None"),
        ({"ppo": 3}, "the configuration's ppo must be an object of options"),
        ({"ppo": {"gamma": "0.9"}}, "option ppo.gamma in the configuration must be float"),
        (
            {"ppo": {"target_kl": "x"}},
            "option ppo.target_kl .* must be a number or null",
        ),
        ({"encoder_options": []}, "option encoder_options in the configuration must be dict"),
    ],
)
def test_json_of_another_kind_is_refused(values: dict[str, Any], said: str) -> None:
    with refused(said):
        TrainConfig.from_json(values)


def test_a_runs_configuration_is_read_from_its_directory_or_its_file(tmp_path: Path) -> None:
    document = {"config": ODD.to_json(), "provenance": {}}
    with RunDirectory.create(tmp_path / "run", document) as run:
        assert read_config(run) == ODD
    assert read_config(tmp_path / "run" / "config.json") == ODD


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "is not a file"),
        ("{", "is truncated or corrupted"),
        ("{}", 'configuration of an agent\'s training: "config" is missing'),
        ('{"config": 3}', 'configuration of an agent\'s training: "config" is missing'),
        ('{"config": {"num_envs": 0}}', "file.json: --num-envs 0 must be at least 1"),
        ('{"config": {"sead": 0}}', 'file.json: unknown option "sead"'),
    ],
)
def test_a_file_that_is_no_configuration_is_named(
    tmp_path: Path, content: str | None, said: str
) -> None:
    path = tmp_path / "file.json"
    if content is not None:
        path.write_text(content)
    with refused(said):
        read_config(path)


# -- values ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"algo": "a2c"}, '--algo "a2c" is unknown: expected one of ppo, dqn'),
        ({"preset": "quick"}, '--preset "quick" is unknown'),
        ({"encoder": "natur"}, r'--encoder "natur" is unknown: .*Did you mean "nature"\?'),
        ({"protocol": "clasic"}, r'--protocol "clasic" is unknown: .*Did you mean "classic"\?'),
        ({"obs": "gray"}, r'--obs "gray" is unknown: .*Did you mean "grey"\?'),
        ({"precision": "fp16"}, '--precision "fp16" is unknown'),
        ({"compile": "yes"}, '--compile "yes" is unknown'),
        ({"track": "of"}, '--track "of" is unknown'),
        ({"total_steps": 0}, "--total-steps 0 must be at least 1"),
        ({"total_steps": -5}, "--total-steps -5 must be at least 1"),
        ({"num_envs": 0}, "--num-envs 0 must be at least 1"),
        ({"frame_stack": 0}, "--frame-stack 0 must be at least 1"),
        ({"obs_size": -84}, "--obs-size -84 must be at least 1"),
        ({"keep_checkpoints": 0}, "--keep-checkpoints 0 must be at least 1"),
        ({"eval_every": -1}, "--eval-every -1 must be at least 0"),
        ({"num_threads": -1}, "--num-threads -1 must be at least 0"),
        ({"seed": -1}, "--seed -1 must be at least 0 and at most 2147483647"),
        ({"seed": 2**31}, "--seed 2147483648 must be at least 0 and at most 2147483647"),
    ],
)
def test_a_value_out_of_range_is_refused(values: dict[str, Any], said: str) -> None:
    with refused(said):
        replace(TrainConfig(), **values).validate()


@pytest.mark.parametrize(
    ("algo", "values", "said"),
    [
        ("ppo", {"n_steps": 0}, "--ppo.n-steps 0 must be at least 1"),
        ("ppo", {"gamma": 1.5}, "--ppo.gamma 1.5 must be at least 0 and at most 1"),
        ("ppo", {"learning_rate": -1e-3}, "--ppo.learning-rate -0.001 must be at least 0"),
        ("ppo", {"learning_rate": float("inf")}, "--ppo.learning-rate inf must be finite"),
        ("ppo", {"learning_rate": float("nan")}, "--ppo.learning-rate nan must be at least 0"),
        ("ppo", {"clip_range_vf": 0.0}, "--ppo.clip-range-vf 0 lets no value change"),
        ("ppo", {"kl_threshold": 0.0}, "--ppo.kl-threshold 0.0 must be more than 0"),
        ("ppo", {"kl_threshold": 0.01}, "--ppo.kl-threshold 0.01 is for --ppo.learning-rate-sch"),
        (
            "ppo",
            {"learning_rate_schedule": "adaptive"},
            "--ppo.learning-rate-schedule adaptive needs --ppo.kl-threshold",
        ),
        ("dqn", {"learning_rate_schedule": "adaptive"}, '-schedule "adaptive" is unknown'),
        ("ppo", {"adam_eps": 0.0}, "--ppo.adam-eps 0.0 must be more than 0"),
        ("ppo", {"clip_range_schedule": "cosine"}, '--ppo.clip-range-schedule "cosine" is unknown'),
        ("dqn", {"buffer_size": 0}, "--dqn.buffer-size 0 must be at least 1"),
        ("dqn", {"tau": -0.1}, "--dqn.tau -0.1 must be at least 0 and at most 1"),
        ("dqn", {"exploration_final_eps": 2.0}, "--dqn.exploration-final-eps 2.0 must be"),
        ("dqn", {"exploration_fraction": 0.0}, "--dqn.exploration-fraction 0 leaves no time"),
        ("dqn", {"head": "C51"}, '--dqn.head "C51" is unknown: expected one of q, dueling, c51'),
        ("dqn", {"first_cosine": 2}, "--dqn.first-cosine 2 must be at least 0 and at most 1"),
        ("dqn", {"v_min": 3.0, "v_max": 3.0}, "v_min 3 must be below v_max 3"),
        ("dqn", {"head": "dueling-c51", "munchausen": True}, "munchausen is not defined for head"),
        ("dqn", {"v_min": float("nan")}, "--dqn.v-min nan is not usable: expected 0 or from 1e-37"),
        ("dqn", {"v_max": float("inf")}, "--dqn.v-max inf is not usable"),
        ("dqn", {"v_max": 1e39}, r"--dqn.v-max 1e\+39 is not usable"),
        (
            "dqn",
            {"v_min": 9.99999999},
            "v_min 9.99999999 and v_max 10.0 are too close for 51 atoms",
        ),
        ("dqn", {"munchausen_clip": -1e39}, r"--dqn.munchausen-clip -1e\+39 is not usable"),
        ("dqn", {"sigma0": 1e300}, r"--dqn.sigma0 1e\+300 is not usable"),
        ("dqn", {"adam_eps": 1e-60}, "--dqn.adam-eps 1e-60 is not usable"),
        ("ppo", {"clip_range": 1e300}, r"--ppo.clip-range 1e\+300 is not usable"),
        (
            "dqn",
            {"buffer_size": 7},
            "--dqn.buffer-size 7 has no room for a transition of each of 8",
        ),
    ],
)
def test_a_hyperparameter_out_of_range_is_refused(
    algo: Algorithm, values: dict[str, Any], said: str
) -> None:
    section: Any = {"ppo": PPOConfig, "dqn": DQNConfig}[algo](**values)
    with refused(said):
        replace(TrainConfig(algo=algo), **{algo: section}).validate()
    other: Algorithm = "ppo" if algo == "dqn" else "dqn"
    # The other algorithm's are not used, and need not be valid.
    replace(TrainConfig(algo=other), **{algo: section}).validate()


def test_augmentation_with_a_frozen_encoder_is_refused_before_a_run_begins() -> None:
    config = TrainConfig(algo="dqn", mode="frozen", dqn=DQNConfig(augment="drq"))
    with refused("--dqn.augment drq needs pixels, but the features of a frozen encoder are stored"):
        config.validate()
    replace(config, mode="train").validate()


@pytest.mark.parametrize("encoder", [*list_encoders(), "resnet18", "vgg16_bn:features.32"])
def test_every_encoder_can_be_chosen(encoder: str) -> None:
    config = TrainConfig(encoder=encoder)
    config.validate()
    assert TrainConfig.from_json(config.to_json()) == config


# -- what "auto" stands for ------------------------------------------------------------------------


def test_nothing_is_auto_after_resolving() -> None:
    config = TrainConfig(num_envs=2).resolve()
    assert config.device == ("cuda" if torch.cuda.is_available() else "cpu")
    assert config.precision in ("fp32", "bf16")
    assert config.compile in ("on", "off")
    assert config.cuda_graphs in ("on", "off")
    assert config.num_threads == usable_cores()
    assert config.resolve() == config


def test_what_was_chosen_is_kept() -> None:
    chosen = TrainConfig(
        device="cpu",
        precision="fp32",
        compile="on",
        cuda_graphs="off",
        overlap="on",
        num_threads=3,
        ppo=PPOConfig(batch_size=64),
        pqn=PQNConfig(batch_size=64),
    )
    assert chosen.resolve() == chosen


@pytest.mark.parametrize("algo", get_args(Algorithm))
def test_nothing_is_compiled_unless_asked_for(algo: Algorithm) -> None:
    assert TrainConfig(algo=algo, device="cpu", total_steps=10**7).resolve().compile == "off"
    assert TrainConfig(device="cpu", compile="on").resolve().compile == "on"


@pytest.mark.parametrize("compile", ["on", "off"])
@pytest.mark.parametrize(
    ("device", "cuda_graphs", "expected"),
    [
        ("cuda", "auto", "on"),
        ("cuda", "on", "on"),
        ("cuda", "off", "off"),
        ("cuda:1", "auto", "on"),
        ("cpu", "auto", "off"),
        ("cpu", "on", "off"),
    ],
)
def test_graphs_are_captured_on_a_gpu_unless_refused_whatever_is_compiled(
    device: str,
    cuda_graphs: Any,
    expected: str,
    compile: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(devices, "resolve_device", lambda device: device)
    config = TrainConfig(
        device=device, precision="fp32", cuda_graphs=cuda_graphs, compile=compile
    ).resolve()
    assert (config.cuda_graphs, config.compile) == (expected, compile)


def test_nothing_of_dqn_is_compiled() -> None:
    dqn = TrainConfig(algo="dqn", device="cpu", precision="fp32", compile="on")
    assert dqn.resolve().compile == "off"


def test_a_configuration_of_version_0_1_asks_for_graphs_by_compile() -> None:
    config = TrainConfig.from_json({"compile": "graph"})
    assert (config.compile, config.cuda_graphs) == ("off", "on")
    config.validate()


@pytest.mark.parametrize(
    ("num_envs", "n_steps", "batch_size"),
    [
        (32, 32, 256),
        (8, 128, 256),
        (1, 32, 8),
        (2, 32, 16),
        (3, 32, 24),
        (1, 6, 2),
        (1, 10, 5),
        (1, 4, 2),
        (1, 7, 7),
        (100, 100, 2500),
    ],
)
def test_the_default_minibatch_follows_the_rollout(
    num_envs: int, n_steps: int, batch_size: int
) -> None:
    fast = preset_config("fast", "ppo")
    ppo = replace(fast.ppo, n_steps=n_steps)
    config = replace(fast, num_envs=num_envs, ppo=ppo, device="cpu")
    config.validate()
    assert config.resolve().ppo.batch_size == batch_size
    assert config.resolve().to_json()["ppo"]["batch_size"] == batch_size
    chosen = replace(config, ppo=replace(ppo, batch_size=100)).resolve()
    assert chosen.ppo.batch_size == 100, "an explicit one is not changed"
