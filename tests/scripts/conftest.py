"""The scripts as a user runs them, on real emulator frames, and a run of theirs to work with."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from script_runs import ROLLOUT, ROOT, TINY, run_script


def _load(script: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(script, ROOT / "scripts" / f"{script}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Where dataclasses look up what their annotations name.
    sys.modules[script] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def train_agent() -> Callable[..., None]:
    """``train_agent.py`` within this process: what it raises is what the script would print."""
    script = _load("train_agent")
    return lambda *arguments: script.main([str(argument) for argument in arguments])


@pytest.fixture(scope="session")
def evaluate_agent() -> Callable[..., None]:
    """``evaluate_agent.py`` within this process."""
    script = _load("evaluate_agent")
    return lambda *arguments: script.main([str(argument) for argument in arguments])


@pytest.fixture(scope="session")
def pretrain_encoder() -> Callable[..., None]:
    """``pretrain_encoder.py`` within this process."""
    script = _load("pretrain_encoder")
    return lambda *arguments: script.main([str(argument) for argument in arguments])


@pytest.fixture(scope="session")
def evaluate_classifier() -> Callable[..., None]:
    """``evaluate_classifier.py`` within this process."""
    script = _load("evaluate_classifier")
    return lambda *arguments: script.main([str(argument) for argument in arguments])


@pytest.fixture(scope="session")
def probe_encoder() -> Callable[..., None]:
    """``probe_encoder.py`` within this process."""
    script = _load("probe_encoder")
    return lambda *arguments: script.main([str(argument) for argument in arguments])


@pytest.fixture(scope="session")
def benchmark() -> Callable[..., None]:
    """``benchmark.py`` within this process."""
    script = _load("benchmark")
    return lambda *arguments: script.main([str(argument) for argument in arguments])


@pytest.fixture(autouse=True)
def _same_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    assert torch.get_num_threads() == threads


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run that a subprocess trained to its end, and what it said. Copy it to change it."""
    path = tmp_path_factory.mktemp("finished") / "run [1]"
    done = run_script(
        "train_agent",
        *TINY,
        *("--total-steps", 3 * ROLLOUT, "--checkpoint-every", ROLLOUT, "--run-dir", path),
        *("--track", "offline"),
    )
    assert done.returncode == 0, done.stderr
    return path, done.stderr


@pytest.fixture
def finished_copy(finished: tuple[Path, str], tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished[0], tmp_path / "copy"))
