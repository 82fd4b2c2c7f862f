"""Short training runs of agents, stopped, copied and read, for tests of what runs leave behind."""

from __future__ import annotations

import io
import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from agents.config import DQNConfig, PPOConfig, PQNConfig
from agents.train.training import Training
from rlcnn.runs.stopping import TrainingStopped
from support.run_files import rows_of
from support.tiny_agents import TINY

PPO = replace(
    TINY,
    env="support.games:Signals-v0",
    overlap="off",
    total_steps=320,
    eval_every=100,
    eval_episodes=3,
    checkpoint_every=64,
    keep_checkpoints=2,
    seed=3,
    ppo=PPOConfig(n_steps=8, batch_size=8, n_epochs=2),
)
"""20 rollouts of 16 steps; 80 gradient updates."""

DQN = replace(
    PPO,
    algo="dqn",
    dqn=DQNConfig(buffer_size=200, learning_starts=32, batch_size=8, target_update_interval=50),
)
"""72 gradient updates."""

PQN = replace(PPO, algo="pqn", pqn=PQNConfig(n_steps=8, batch_size=8, n_epochs=2))
"""As many gradient updates as PPO's."""


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


def steps_of(run_dir: Path, key: str) -> list[int]:
    return [row["step"] for row in rows_of(run_dir) if key in row]


def press_ctrl_c() -> None:
    signal.raise_signal(signal.SIGINT)


@contextmanager
def stopped_at(step: int) -> Iterator[None]:
    """Ctrl-C at an evaluation of the agent as it stands, at ``step``."""
    evaluate = Training.evaluate_so_far

    def press(self: Training) -> None:
        evaluate(self)
        if self.model.num_timesteps == step:
            press_ctrl_c()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "evaluate_so_far", press)
        with pytest.raises(TrainingStopped, match=f"stopped at step {step}; go on with --resume"):
            yield


def copied(run_dir: Path, to: Path) -> Path:
    shutil.copytree(run_dir, to)
    return to


BOTH = pytest.mark.parametrize("algo", ["ppo", "dqn"])
PPO_FIRST = pytest.mark.parametrize("algo", ["ppo", pytest.param("dqn", marks=pytest.mark.slow)])
DQN_FIRST = pytest.mark.parametrize("algo", ["dqn", pytest.param("ppo", marks=pytest.mark.slow)])


def assert_logged_once(run_dir: Path) -> None:
    """No step has two values of one figure."""
    counts = Counter((row["step"], key) for row in rows_of(run_dir) for key in row if key != "step")
    assert set(counts.values()) == {1}
