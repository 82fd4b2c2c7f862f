"""Agents loaded from the checkpoints of runs."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.agent_runs import BOTH, DQN, PPO, copied, quiet
from support.run_files import assert_equal, learned

from agents import load_agent
from agents.train.training import train
from envs.errors import UserError
from rlcnn.runs.directory import RunDirectory


@BOTH
def test_an_agent_is_loaded_as_it_was_saved(algo: str, stopped: dict[str, Path]) -> None:
    model = load_agent(stopped[algo], device="cpu")
    stored, loaded = learned(stopped[algo])["policy"], model.policy.state_dict()
    # What stands under several names is stored under one.
    assert_equal(stored, {name: loaded[name] for name in stored})
    actions, _ = model.predict(np.zeros((5, 2, 36, 36), np.uint8), deterministic=True)
    assert actions.shape == (5,)


def test_to_play_only_the_policy_need_be_whole(stopped: dict[str, Path], tmp_path: Path) -> None:
    run_dir = copied(stopped["dqn"], tmp_path / "run")
    newest = RunDirectory.open(run_dir).checkpoints()[-1]

    def harm(name: str) -> None:
        data = (newest / name).read_bytes()
        (newest / name).write_bytes(data[:-1] + bytes([data[-1] ^ 0xFF]))

    harm("replay.safetensors")
    for wanted in (None, newest):
        assert load_agent(run_dir, checkpoint=wanted).num_timesteps == int(newest.name)
    # To go on, all of it must be.
    assert RunDirectory.open(run_dir).latest_whole()[0] != newest
    harm("policy.safetensors")
    assert load_agent(run_dir).num_timesteps < int(newest.name)
    with pytest.raises(UserError, match=r"is damaged: the contents of policy\.safetensors"):
        load_agent(run_dir, checkpoint=newest)


def test_an_older_agent_can_be_loaded(whole: dict[str, Path]) -> None:
    older, newest = RunDirectory.open(whole["ppo"]).checkpoints()
    models = [load_agent(whole["ppo"], checkpoint=path, device="cpu") for path in (older, newest)]
    weights = [model.policy.action_net.weight for model in models]
    assert not torch.equal(*weights)


@BOTH
def test_an_agent_that_sees_colours_is_loaded(algo: str, tmp_path: Path) -> None:
    config = replace(
        {"ppo": PPO, "dqn": DQN}[algo],
        env="support.games:ColourSignals-v0",
        obs="rgb",
        total_steps=64,
        eval_episodes=0,
        encoder="nature",
    )
    train(config, tmp_path / "run", console=quiet())
    model = load_agent(tmp_path / "run")
    assert model.observation_space.shape == (6, 36, 36)
    action, _ = model.predict(np.zeros((6, 36, 36), np.uint8))
    assert int(action) in range(4)


def test_there_must_be_something_to_load(stopped: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        load_agent(tmp_path / "nowhere")
    run_dir = copied(stopped["ppo"], tmp_path / "run")
    shutil.rmtree(run_dir / "checkpoints")
    with pytest.raises(UserError, match="has no whole checkpoint yet"):
        load_agent(run_dir)
    with pytest.raises(UserError, match='unknown device "gpu"'):
        load_agent(stopped["ppo"], device="gpu")
