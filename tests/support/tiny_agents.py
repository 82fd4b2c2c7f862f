"""A training of next to no time, which tests vary."""

from __future__ import annotations

from agents.config import PPOConfig, TrainConfig

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
