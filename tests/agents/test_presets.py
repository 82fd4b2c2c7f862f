"""Presets: their values, what they refuse, and whether an agent of each learns and resumes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from support.agent_runs import copied, quiet
from support.run_files import assert_equal, checkpoint_steps, learned

from agents.config import Preset, TrainConfig
from agents.hyperparameters import Algorithm
from agents.presets import PRESETS, preset_config
from agents.train.training import resume, train
from envs.errors import UserError
from rlcnn.runs.directory import RunDirectory

CASES = [(preset, algo) for preset, configs in PRESETS.items() for algo in configs]
NAMED = [preset for preset, configs in PRESETS.items() if len(configs) == 1]
BEST_RETURN = 16.0  # of Signals


def small(preset: str, algo: str | None = None, **options: Any) -> TrainConfig:
    """A preset's parts in a tiny world, with fewer units and ``options`` of its algorithm."""
    config = preset_config(preset, algo)
    section: dict[str, Any] = {"batch_size": 8}
    if config.algo == "dqn":
        section |= {"buffer_size": 2_000, "learning_starts": 40, "train_freq": 8}
        section |= {"target_update_interval": 64, "gradient_steps": 1}
        section |= {"head_units": 16 if config.dqn.hidden_units else None}
        section |= {"quantiles": 8, "iqn_samples": 4, "iqn_target_samples": 4}
        section |= {"iqn_acting_samples": 4, "cosines": 8, "atoms": 21}
    else:
        section |= {"n_steps": 8, "n_epochs": 1}
    config = config.with_hyperparameters(replace(config.hyperparameters, **section, **options))
    # Wide enough for a 6x6 grid of maxima.
    large = config.encoder == "impala"
    return replace(
        config,
        env="support.games:Signals-v0",
        encoder_options={**config.encoder_options, **({"width": 0.25} if large else {})},
        obs_size=44 if large else 36,
        frame_stack=1,
        num_envs=4,
        num_threads=1,
        device="cpu",
        precision="fp32",
        track="disabled",
        total_steps=200,
        eval_every=0,
        eval_episodes=0,
        video_every=0,
        checkpoint_every=0,
    )


def test_every_algorithm_has_a_fast_preset_and_the_zoos() -> None:
    assert set(PRESETS) == set(get_args(Preset))
    assert [set(PRESETS[name]) for name in ("fast", "zoo")] == [set(get_args(Algorithm))] * 2
    assert preset_config() == preset_config("fast", "ppo")


@pytest.mark.parametrize(("preset", "algo"), CASES)
def test_every_preset_is_valid_and_fits_itself(preset: str, algo: str) -> None:
    config = preset_config(preset, algo)
    config.validate()
    assert (config.preset, config.algo) == (preset, algo)
    options: Any = config.resolve().hyperparameters
    if config.algorithm.on_policy:
        assert config.num_envs * options.n_steps % options.batch_size == 0
    assert config.dqn.learning_starts < config.total_steps


@pytest.mark.parametrize("preset", NAMED)
def test_a_published_preset_chooses_its_algorithm_and_refuses_another(preset: str) -> None:
    algo = preset_config(preset).algo
    other = "ppo" if algo != "ppo" else "dqn"
    assert preset_config(preset, algo) is preset_config(preset)
    with pytest.raises(UserError, match=f"--preset {preset} is for --algo {algo}: .* or zoo"):
        preset_config(preset, other)


@pytest.mark.parametrize(("preset", "algo"), [("zo", "ppo"), ("zoo", "a2c"), ("btr", "a2c")])
def test_an_unknown_preset_is_refused(preset: str, algo: str) -> None:
    with pytest.raises(UserError, match=r'"(zo|a2c)" is unknown: expected one of'):
        preset_config(preset, algo)


@pytest.mark.parametrize(
    ("preset", "encoder", "options"),
    [
        ("iqn", {}, {"features_dim": 0}),
        ("iqn", {"encoder": "impala"}, {"features_dim": 0}),
        ("iqn", {"encoder": "lenet"}, {}),
        ("iqn", {"encoder_options": {"features_dim": 9}}, {"features_dim": 9}),
        ("iqn", {"weights": "weights.safetensors"}, {"features_dim": 512}),
        ("qr-dqn", {}, {}),
        ("rainbow", {}, {"features_dim": 0}),
    ],
)
def test_a_heads_hidden_layer_replaces_the_encoders_linear_layer(
    preset: str, encoder: dict[str, Any], options: dict[str, Any]
) -> None:
    config = replace(preset_config(preset), device="cpu", **encoder)
    assert config.resolve().encoder_options == options


@pytest.mark.parametrize("preset", NAMED)
def test_every_preset_trains_repeats_itself_and_resumes_exactly(
    preset: str, tmp_path: Path
) -> None:
    config = small(preset)
    runs = [train(config, tmp_path / name, console=quiet()) for name in ("first", "second")]
    assert_equal(*map(learned, runs))
    steps = checkpoint_steps(tmp_path / "first")[-1]
    assert steps >= 200

    ends = []
    for name in ("third", "fourth"):
        run_dir = copied(tmp_path / "first", tmp_path / name)
        resume(run_dir, {"total_steps": 264}, console=quiet())
        ends.append(learned(run_dir))
        assert checkpoint_steps(run_dir)[-1] > steps
    assert_equal(*ends)


@pytest.mark.parametrize(
    "preset",
    [
        pytest.param(name, marks=() if name in ("rainbow", "pqn") else pytest.mark.slow)
        for name in NAMED
    ],
)
def test_every_preset_solves_a_tiny_world(preset: str, tmp_path: Path) -> None:
    quick: dict[str, Any] = {"learning_rate": 1e-3, "gamma": 0.5, "batch_size": 32}
    steps = 6_000
    algo = preset_config(preset).algo
    if algo == "ppo":
        # A divergence is to be measured on more than one minibatch.
        quick |= {"n_steps": 32, "n_epochs": 4}
    elif algo == "dqn":
        quick |= {"target_update_interval": 200, "exploration_steps": 2_000, "learning_starts": 200}
        # Differences of returns of 0 to 2 are to be more than one atom.
        quick |= {"v_min": 0.0, "v_max": 4.0}
    else:
        steps = 16_000
    config = replace(small(preset), total_steps=steps, eval_episodes=20)
    section = replace(config.hyperparameters, **quick)
    run = train(config.with_hyperparameters(section), tmp_path / "run", console=quiet())
    summary = RunDirectory.open(run).summary()
    assert summary is not None
    assert summary["eval"]["mean_return"] >= 0.9 * BEST_RETURN
