"""Tiny trainings, which tests vary, and a learner that logs its calls."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from agents.config import DQNConfig, PPOConfig, TrainConfig
from agents.hyperparameters import Algorithm
from agents.presets import preset_config
from envs.errors import UserError

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


def tiny(algo: Algorithm, **changes: object) -> TrainConfig:
    """A training on one core with small frames and small batches."""
    config = replace(
        preset_config("zoo", algo),
        num_envs=2,
        num_threads=1,
        obs_size=44,
        device="cpu",
        precision="fp32",
        compile="off",
    )
    config = replace(
        config,
        ppo=replace(config.ppo, n_steps=8, batch_size=8, n_epochs=2),
        pqn=replace(config.pqn, n_steps=8, batch_size=8, n_epochs=2),
        dqn=replace(config.dqn, buffer_size=1_000, learning_starts=20, batch_size=4),
    )
    return replace(config, **changes)  # type: ignore[arg-type]


@dataclass
class Watched:
    """A learner that writes a line into ``log`` for each call."""

    log: Path
    fails: str = ""
    warm_up_steps: int = 7
    least_steps: int = 10
    steady_rate: float | None = None

    def __post_init__(self) -> None:
        if self.fails == "refused":
            raise UserError("width 0")
        if self.fails == "fills memory":
            raise MemoryError("tried to allocate 1 TB")
        if self.fails == "dies":
            os._exit(3)
        if self.fails == "hangs":
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
            time.sleep(3_600)
        self._write(f"opens with {torch.get_num_threads()} threads")

    @property
    def replay_bytes_per_transition(self) -> float:
        return 1.5

    def learn(self, steps: int) -> int:
        if self.fails == "breaks":
            raise ZeroDivisionError("in learning")
        self._write(f"learns {steps}")
        return steps

    def close(self) -> None:
        self._write("closes")

    def _write(self, line: str) -> None:
        with self.log.open("a") as file:
            file.write(f"{line}\n")
