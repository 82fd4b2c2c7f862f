"""Runs made by the scripts, as tests look at them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

from rlcnn.runs.directory import RunDirectory

ROOT = Path(__file__).parents[2]
# support/games.py lies there, and scripts find what lies in their working directory.
GAMES = ROOT / "tests"

# A run of seconds. One core, so that the sums of a minibatch are always made in one order.
TINY = [
    *("--env", "ALE/Breakout-v5", "--num-envs", "1", "--num-threads", "1", "--precision", "fp32"),
    *("--obs-size", "44", "--compile", "off"),
    *("--ppo.n-steps", "128", "--ppo.batch-size", "64", "--ppo.n-epochs", "2"),
    # So little is learned that games stay short: an agent that forgets to serve plays for ever.
    *("--ppo.learning-rate", "1e-4"),
    *("--eval-episodes", "1", "--track", "disabled"),
]
ROLLOUT = 128
# As many steps a rollout, of two games.
TWO_GAMES = ["--num-envs", "2", "--ppo.n-steps", "64"]


def command(script: str, *arguments: object) -> list[str]:
    return [sys.executable, str(ROOT / "scripts" / f"{script}.py"), *map(str, arguments)]


def environment() -> dict[str, str]:
    # pytest shows the package by a setting of its own; outside it, the package is installed.
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def run_script(
    script: str, *arguments: object, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(script, *arguments), env=environment(), cwd=cwd, capture_output=True, text=True
    )


def read(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text())
    return document


def metrics(run: Path) -> list[dict[str, Any]]:
    return RunDirectory.open(run).metrics()


def steps_of(run: Path) -> list[int]:
    """Checkpoints' steps."""
    return sorted(int(p.name) for p in (run / "checkpoints").iterdir() if p.name.isdecimal())


def policy(run: Path) -> dict[str, bytes]:
    """The newest checkpoint's parameters, bit for bit."""
    newest = run / "checkpoints" / f"{steps_of(run)[-1]:012d}"
    return {
        name: array.tobytes() for name, array in load_file(newest / "policy.safetensors").items()
    }
