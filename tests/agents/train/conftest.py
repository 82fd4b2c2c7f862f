"""Finished and stopped runs, which many tests read or copy."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.agent_runs import DQN, PPO, quiet, stopped_at

from agents.train.training import train


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A finished run of each algorithm."""
    root = tmp_path_factory.mktemp("whole")
    return {
        config.algo: train(config, root / config.algo, console=quiet()) for config in (PPO, DQN)
    }


@pytest.fixture(scope="session")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs stopped at 112 steps (PPO) and 100 (DQN)."""
    root = tmp_path_factory.mktemp("stopped")
    runs = {}
    for config, step in ((PPO, 112), (DQN, 100)):
        runs[config.algo] = root / config.algo
        with stopped_at(step):
            train(config, runs[config.algo], console=quiet())
    return runs
