"""The scripts as a user runs them, on real emulator frames, and a run of theirs to work with."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from pathlib import Path

import pytest
import torch
from support.script_modules import load_script
from support.script_runs import ROLLOUT, TINY

from envs.protocol import PROTOCOLS


def _in_process(script: str) -> Callable[..., None]:
    main = load_script(script).main
    return lambda *arguments: main([str(argument) for argument in arguments])


@pytest.fixture(scope="session")
def train_agent() -> Callable[..., None]:
    """``train_agent.py`` within this process: what it raises is what the script would print."""
    return _in_process("train_agent")


@pytest.fixture(scope="session")
def evaluate_agent() -> Callable[..., None]:
    """``evaluate_agent.py`` within this process."""
    return _in_process("evaluate_agent")


@pytest.fixture(scope="session")
def pretrain_encoder() -> Callable[..., None]:
    """``pretrain_encoder.py`` within this process."""
    return _in_process("pretrain_encoder")


@pytest.fixture(scope="session")
def evaluate_classifier() -> Callable[..., None]:
    """``evaluate_classifier.py`` within this process."""
    return _in_process("evaluate_classifier")


@pytest.fixture(scope="session")
def probe_encoder() -> Callable[..., None]:
    """``probe_encoder.py`` within this process."""
    return _in_process("probe_encoder")


@pytest.fixture(scope="session")
def benchmark() -> Callable[..., None]:
    """``benchmark.py`` within this process."""
    return _in_process("benchmark")


@pytest.fixture(scope="session")
def compare_encoders() -> Callable[..., None]:
    """``compare_encoders.py`` within this process."""
    return _in_process("compare_encoders")


@pytest.fixture(autouse=True)
def _same_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    assert torch.get_num_threads() == threads


@contextmanager
def _truncated_games() -> Iterator[None]:
    """Ends games of evaluations and films early: some agents play for ever."""
    with pytest.MonkeyPatch.context() as patch:
        for name, protocol in PROTOCOLS.items():
            patch.setitem(PROTOCOLS, name, dataclasses.replace(protocol, max_episode_steps=60))
        yield


@pytest.fixture(autouse=True)
def _short_games() -> Iterator[None]:
    with _truncated_games():
        yield


@pytest.fixture(scope="session")
def finished(
    train_agent: Callable[..., None], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """A run trained to its end, and what it said. Copy it to change it."""
    path = tmp_path_factory.mktemp("finished") / "run [1]"
    with _truncated_games(), redirect_stderr(StringIO()) as said:
        train_agent(
            *TINY,
            *("--total-steps", 3 * ROLLOUT, "--checkpoint-every", ROLLOUT, "--run-dir", path),
            *("--track", "offline"),
        )
        # W&B's own process writes its log until it ends.
        pytest.importorskip("wandb").teardown()
    return path, said.getvalue()


@pytest.fixture
def finished_copy(finished: tuple[Path, str], tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished[0], tmp_path / "copy"))
