"""Tiny trainings, which tests vary."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from agents.config import DQNConfig, PPOConfig, TrainConfig

TINY = TrainConfig(
    encoder="lenet",
    encoder_options={"features_dim": 16},
    obs_size=36,
    frame_stack=2,
    num_envs=2,
    num_threads=1,
    device="cpu",
    precision="fp32",
    compile="off",
    cuda_graphs="off",
    track="disabled",
    total_steps=32,
    eval_every=0,
    eval_episodes=2,
    video_every=0,
    checkpoint_every=16,
    ppo=PPOConfig(n_steps=8, batch_size=8, n_epochs=1),
)
"""A training of two updates."""

GPU_RUN = replace(TINY, env="support.games:Signals-v0", device="cuda", cuda_graphs="on")
"""A training on a real or a pretend GPU."""


def as_dqn(config: TrainConfig, **options: Any) -> TrainConfig:
    """The same training by DQN with minibatches of 8 and other ``options`` of DQN."""
    section = {"batch_size": 8, "target_update_interval": 32, **options}
    return replace(config, algo="dqn", dqn=DQNConfig(**section))
