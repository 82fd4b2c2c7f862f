"""PPO: its update against stable-baselines3's own, its storage, its refusals."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import PPO as SB3PPO  # noqa: N811
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import DummyVecEnv

from agents.ppo import PPO
from envs.atari import AtariVecEnv
from envs.errors import UserError
from rlcnn.encoders.sb3 import EncoderExtractor

SETTINGS: dict[str, Any] = {
    "n_steps": 16,
    "batch_size": 32,
    "n_epochs": 2,
    "learning_rate": 1e-3,
    "clip_range": 0.1,
    "ent_coef": 0.01,
    "seed": 3,
    "device": "cpu",
}


def sb3_twin(ours: PPO, venv: Any) -> SB3PPO:
    """stable-baselines3's PPO with the same settings, parameters and rollout as ours."""
    settings = {**SETTINGS, "clip_range_vf": ours.clip_range_vf, "n_epochs": ours.n_epochs}
    theirs = SB3PPO(
        "CnnPolicy",
        venv,
        policy_kwargs={
            "features_extractor_class": EncoderExtractor,
            "features_extractor_kwargs": {"encoder": "nature"},
            "net_arch": [],
        },
        **settings,
    )
    theirs.policy.load_state_dict(ours.policy.state_dict())
    mine, buffer = ours.rollout_buffer, theirs.rollout_buffer
    steps, n_envs = mine.buffer_size, mine.n_envs
    everything = torch.arange(steps * n_envs)
    stacks = mine.observations(everything)
    buffer.observations = stacks.numpy().reshape(steps, n_envs, *stacks.shape[1:])
    buffer.actions = mine.actions.numpy()[:, :, None].astype(np.float32)
    for name in ("rewards", "values", "log_probs", "advantages", "returns", "episode_starts"):
        setattr(buffer, name, getattr(mine, name).numpy().copy())
    buffer.full, buffer.pos = True, steps
    return theirs


def same_order(monkeypatch: pytest.MonkeyPatch, steps: int, n_envs: int) -> None:
    """Makes both shuffle alike: theirs counts environment by environment, ours step by step."""
    shuffles = [np.random.default_rng(i).permutation(steps * n_envs) for i in range(20)]
    ours, theirs = iter(shuffles), iter(shuffles)

    def permutation(n: int) -> np.ndarray:
        order = next(theirs)
        return (order % n_envs) * steps + order // n_envs

    monkeypatch.setattr(np.random, "permutation", permutation)
    monkeypatch.setattr(torch, "randperm", lambda n, device: torch.as_tensor(next(ours)))


@pytest.mark.parametrize("clip_range_vf", [None, 0.2])
def test_update_equals_stable_baselines3(
    monkeypatch: pytest.MonkeyPatch, clip_range_vf: float | None
) -> None:
    venv = AtariVecEnv("ALE/Breakout-v5", 4, seed=1, num_threads=1)
    model = PPO("CnnPolicy", venv, clip_range_vf=clip_range_vf, **SETTINGS)
    model.set_logger(Logger(None, []))
    _, callback = model._setup_learn(64)
    assert model.collect_rollouts(venv, callback, model.rollout_buffer, model.n_steps)
    # A world with something to learn: Breakout pays too seldom for 16 steps.
    rewards = np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32)
    model.rollout_buffer.rewards.copy_(torch.as_tensor(rewards))
    model.rollout_buffer.compute_returns_and_advantage(torch.zeros(4), np.zeros(4, dtype=bool))
    theirs = sb3_twin(model, venv)
    theirs.set_logger(Logger(None, []))
    before = {name: tensor.clone() for name, tensor in model.policy.state_dict().items()}

    same_order(monkeypatch, 16, 4)
    model.train()
    theirs.train()

    for name, tensor in theirs.policy.state_dict().items():
        mine = model.policy.state_dict()[name]
        moved = (mine - before[name]).abs().max()
        assert moved > 1e-4, f"{name} did not learn"
        # Adam's steps are of about the learning rate (1e-3) each, whatever the gradient: where
        # that is nearly zero, rounding decides on more than it would elsewhere.
        torch.testing.assert_close(mine, tensor, rtol=1e-3, atol=2e-5)
    for key in ("train/value_loss", "train/approx_kl", "train/clip_fraction"):
        ours, expected = model.logger.name_to_value[key], theirs.logger.name_to_value[key]
        assert ours == pytest.approx(expected, rel=1e-3, abs=1e-5), key
    venv.close()
