"""Small runs, and the contents of runs without wall-clock values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from rlcnn.runs.directory import RunDirectory
from rlcnn.weights.load import read_tensors

CONFIG = {"seed": 7, "ppo": {"learning_rate": 2.5e-4}}


def save_checkpoint(run: RunDirectory, step: int, **files: bytes) -> Path:
    with run.new_checkpoint(step) as directory:
        for name, content in (files or {"weights": b"w"}).items():
            (directory / name).write_bytes(content)
    return run.checkpoints_dir / f"{step:012d}"


def rows_of(run_dir: Path) -> list[dict[str, Any]]:
    """Rows of metrics without wall-clock values."""
    return [
        {key: value for key, value in row.items() if not key.startswith("time/")}
        for row in RunDirectory.open(run_dir).metrics()
    ]


def learned(run_dir: Path) -> dict[str, Any]:
    """The contents of the last checkpoint without wall-clock values."""
    path = RunDirectory.open(run_dir).checkpoints()[-1]
    state = json.loads((path / "state.json").read_text())
    del state["extra"]["wall_seconds"]
    for game in state["episodes"]:
        del game["t"]
    for key in [key for key in state["pending"] if key.startswith("time/")]:
        del state["pending"][key]
    held = {"state": state, "policy": load_file(path / "policy.safetensors")}
    for name in ("optimizer", "rng"):
        held[name] = torch.load(path / f"{name}.pt", weights_only=True)
    if (path / "replay.safetensors").exists():
        held["replay"] = load_file(path / "replay.safetensors")
    return held


def assert_equal(one: Any, other: Any) -> None:
    """Checks that nested values are equal to the bit."""
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_equal(a, b)
    else:
        assert one == other


def checkpoint_steps(run_dir: Path) -> list[int]:
    """The steps of the whole checkpoints."""
    return [int(path.name) for path in RunDirectory.open(run_dir).checkpoints()]


def weights_of(run_dir: Path, name: str = "last") -> dict[str, bytes]:
    """The tensors of a pretraining's weights file, bit for bit."""
    tensors = read_tensors(run_dir / f"{name}.safetensors").tensors
    return {key: tensor.numpy().tobytes() for key, tensor in tensors.items()}
