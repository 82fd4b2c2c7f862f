"""From a configuration to an agent: the options and first weights of its encoder."""

from __future__ import annotations

import hashlib
import io
import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from rich.console import Console
from support.tiny_agents import TINY
from torchvision import models

from agents import DQN, PPO, load_agent
from agents.config import TrainConfig
from agents.registry import Agent
from agents.train import builder
from agents.train.builder import build_agent, load_report, make_train_env
from agents.train.checkpoint import encoder_origin
from agents.train.training import default_run_dir, resume, train
from envs.errors import UserError
from envs.make import make_vec_env
from envs.pixels import PixelVecEnv
from rlcnn.encoders import Encoder, FrameEncoder, create_encoder
from rlcnn.weights.load import save_encoder
from rlcnn.weights.origin import Origin

CONFIG = replace(
    TINY, env="support.games:Signals-v0", eval_episodes=0, video_every=TrainConfig().video_every
)
BACKBONE = replace(
    CONFIG, encoder="squeezenet1_1:features.4", encoder_options={"features_dim": 8}, obs="rgb"
)

PPO_FIRST = pytest.mark.parametrize("algo", ["ppo", pytest.param("dqn", marks=pytest.mark.slow)])


def built(config: TrainConfig) -> Agent:
    with closing(make_train_env(config)) as venv:
        return build_agent(config, venv)


def encoders(model: Agent) -> list[Encoder]:
    return [module for module in model.policy.modules() if isinstance(module, Encoder)]


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Encoder, Path]:
    encoder = create_encoder("lenet", (2, 36, 36), features_dim=16)
    save_encoder(encoder, tmp_path / "lenet.safetensors")
    return encoder, tmp_path / "lenet.safetensors"


@pytest.mark.parametrize("algo, networks", [("ppo", 1), ("dqn", 2)])
def test_the_encoder_starts_from_the_weights(
    algo: Literal["ppo", "dqn"], networks: int, saved: tuple[Encoder, Path]
) -> None:
    encoder, path = saved
    model = built(replace(CONFIG, algo=algo, weights=str(path)))
    found = encoders(model)
    assert len(found) == networks
    for one in found:
        for name, value in one.state_dict().items():
            assert torch.equal(value, encoder.state_dict()[name]), name
    report = load_report(model)
    assert report is not None
    assert report.loaded == tuple(encoder.state_dict())


def test_without_weights_there_is_no_report() -> None:
    assert load_report(built(CONFIG)) is None
    assert load_report(built(replace(CONFIG, algo="dqn"))) is None


@pytest.mark.parametrize(
    "obs, depth, stack, channels",
    [("rgb", 2, 2, 3), ("grey", 2, 2, 1), ("grey", 3, 3, 1), ("rgb", 1, 1, 3)],
)
def test_a_backbone_gets_the_channels_of_a_frame(
    obs: Literal["grey", "rgb"], depth: int, stack: int, channels: int
) -> None:
    (encoder,) = encoders(built(replace(BACKBONE, obs=obs, frame_stack=depth)))
    assert isinstance(encoder, FrameEncoder)
    assert (encoder.stack, encoder.frame_shape[0]) == (stack, channels)


@pytest.mark.parametrize("kind", [PPO, pytest.param(DQN, marks=pytest.mark.slow)])
def test_the_classes_tell_a_backbone_the_colours_of_a_frame(
    kind: type[PPO | DQN], tmp_path: Path
) -> None:
    extractor: dict[str, Any] = {"encoder": BACKBONE.encoder, "encoder_options": None}
    stacked = replace(BACKBONE, obs="grey", frame_stack=3)
    with closing(make_train_env(stacked)) as venv:
        options: dict[str, Any] = {"batch_size": 8, "device": "cpu"}
        options |= {"n_steps": 8} if kind is PPO else {"buffer_size": 40}
        arguments = {"features_extractor_kwargs": extractor}
        model: Any = kind("CnnPolicy", venv, policy_kwargs=arguments, **options)
        model.save(tmp_path / "model.zip")
        for agent in (model, kind.load(tmp_path / "model.zip", device="cpu")):
            (encoder, *_) = encoders(agent)
            assert isinstance(encoder, FrameEncoder)
            assert (encoder.stack, encoder.frame_shape[0]) == (3, 1)
        # What is asked for counts.
        arguments = {
            "features_extractor_kwargs": {**extractor, "encoder_options": {"frame_channels": 3}}
        }
        (encoder, *_) = encoders(kind("CnnPolicy", venv, policy_kwargs=arguments, **options))
        assert encoder.spec()["options"]["frame_channels"] == 3


@PPO_FIRST
def test_a_run_keeps_the_report_and_needs_the_file_no_more(
    algo: Literal["ppo", "dqn"], tmp_path: Path
) -> None:
    path = tmp_path / "squeezenet1_1.pth"
    torch.save(models.squeezenet1_1(weights=None).state_dict(), path)
    config = replace(BACKBONE, algo=algo, weights=str(path))
    config = replace(config, dqn=replace(config.dqn, buffer_size=40, learning_starts=8))
    out = io.StringIO()
    run = train(config, tmp_path / "run", console=Console(file=out, width=60))
    report: dict[str, Any] = json.loads((run / "weights.json").read_text())
    assert report["source"] == f'"{path}"'
    assert len(report["loaded"]) == 14
    assert "features.6.squeeze.weight" in report["unused"]
    assert "14 loaded, 0 adapted, 4 new" in out.getvalue()
    assert "projection.* (4 tensors): new" in out.getvalue()
    path.unlink()
    agent = load_agent(run)
    assert isinstance(agent, DQN) == (algo == "dqn")
    resume(run, {"total_steps": 48}, console=Console(file=out))
    assert load_agent(run).num_timesteps == 48
    # What it learned starts another run, whatever that one's colours.
    other = built(replace(BACKBONE, obs="grey", weights=str(run)))
    learned, own = encoders(load_agent(run))[0], encoders(other)[0]
    trunk = [name for name in own.state_dict() if name.startswith("trunk.")]
    assert all(torch.equal(own.state_dict()[n], learned.state_dict()[n]) for n in trunk)


@PPO_FIRST
def test_an_agent_says_where_its_encoder_came_from_through_resumes_and_from_agent_to_agent(
    algo: Literal["ppo", "dqn"], saved: tuple[Encoder, Path], tmp_path: Path
) -> None:
    encoder, path = saved
    about = {"data": "mnist", "recipe": "lenet5-1998", "accuracy": 0.99, "run": "runs/lenet"}
    save_encoder(encoder, path, about)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    config = replace(CONFIG, algo=algo, weights=str(path), mode="finetune", unfreeze_at_step=20)
    config = replace(config, dqn=replace(config.dqn, buffer_size=40, learning_starts=8))
    quiet = Console(quiet=True)
    first = train(config, tmp_path / "first", console=quiet)
    path.unlink()

    def origin_of(run: Path) -> Origin:
        origin = encoder_origin(load_agent(run))
        assert origin is not None
        return origin

    began = origin_of(first)
    assert (began.weights, began.sha256, began.about) == (str(path), digest, about)
    assert json.loads((first / "weights.json").read_text())["origin"] == began.to_json()
    resume(first, {"total_steps": 48}, console=quiet)
    assert origin_of(first) == began
    frozen = replace(config, weights=str(first), mode="frozen", unfreeze_at_step=0)
    second = train(frozen, tmp_path / "second", console=quiet)
    chain = origin_of(second)
    policy = first / "checkpoints" / f"{48:012d}" / "policy.safetensors"
    assert (chain.weights, chain.file) == (str(first), str(policy))
    assert chain.sha256 == hashlib.sha256(policy.read_bytes()).hexdigest()
    about = {"algorithm": algo, "step": 48, "env": CONFIG.env, "mode": "finetune"}
    assert chain.about == about
    assert chain.origin == began


def test_a_frozen_random_encoder_costs_a_line(tmp_path: Path) -> None:
    out = io.StringIO()
    config = replace(CONFIG, mode="frozen", precision="bf16")
    run = train(config, tmp_path / "run", console=Console(file=out, width=60))
    assert "the frozen encoder has random weights" in out.getvalue()
    assert "features of the frozen encoder (bfloat16)" in " ".join(out.getvalue().split())
    assert encoder_origin(load_agent(run)) is None
    written = json.loads((run / "config.json").read_text())["config"]
    assert written["feature_dtype"] == "bf16"


@pytest.mark.parametrize(
    "weights, said",
    [
        ("nothing.pth", '"nothing.pth" does not exist'),
        ("imagenet", 'no ImageNet weights for encoder "lenet"'),
        (".", "is a directory, but not a run"),
    ],
)
def test_weights_that_cannot_be_had_stop_a_run_before_it_begins(
    weights: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=said):
        train(replace(CONFIG, weights=weights), tmp_path / "run", console=Console(quiet=True))
    assert not (tmp_path / "run").exists()


def test_the_default_directory_has_no_colons_and_slashes() -> None:
    name = default_run_dir(replace(CONFIG, encoder="timm:hf/resnet18:layer2")).name
    assert name.startswith("Signals-v0-ppo-timm-hf-resnet18-layer2-seed0-")


@pytest.mark.parametrize("algo", ["ppo", "dqn"])
def test_the_games_and_the_draws_of_a_run_do_not_hang_on_its_encoder(
    algo: Literal["ppo", "dqn"],
) -> None:
    seen = []
    for encoder in ("lenet", "impala"):
        config = replace(CONFIG, algo=algo, encoder=encoder, encoder_options={})
        with closing(make_train_env(config)) as venv:
            build_agent(config, venv)
            frames = [venv.reset(), venv.step(np.array([0, 1]))[0]]
        seen.append((frames, np.random.random(3), torch.rand(3)))
    (frames, from_numpy, from_torch), (others, *draws) = seen
    assert np.array_equal(frames, others)
    assert np.array_equal(from_numpy, draws[0])
    assert from_torch.equal(draws[1])


def test_groups_are_closed_if_a_later_one_cannot_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    def make_or_fail(*args: Any, **kwargs: Any) -> Any:
        if made:
            raise UserError("no room for another group")
        made.append(make_vec_env(*args, **kwargs))
        return made[0]

    closed: list[bool] = []
    monkeypatch.setattr(builder, "make_vec_env", make_or_fail)
    monkeypatch.setattr(PixelVecEnv, "close", lambda self: closed.append(self is made[0]))
    with pytest.raises(UserError, match="no room"):
        make_train_env(replace(CONFIG, num_envs=2, env_groups=2))
    assert closed == [True]
