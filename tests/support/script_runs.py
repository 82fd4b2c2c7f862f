"""The scripts as commands and as modules, and the runs that they leave."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from safetensors.numpy import load_file

from rlcnn.runs.directory import RunDirectory

ROOT = Path(__file__).parents[2]
# The directory of support/games.py; scripts import modules of their working directory.
GAMES = ROOT / "tests"

# A run of seconds. One core, so that the sums of a minibatch always have one order.
TINY = [
    *("--env", "ALE/Breakout-v5", "--num-envs", "1", "--num-threads", "1", "--precision", "fp32"),
    *("--obs-size", "44", "--compile", "off"),
    *("--ppo.n-steps", "128", "--ppo.batch-size", "64", "--ppo.n-epochs", "2"),
    # With a low rate games stay short: an agent that forgets to serve plays for ever.
    *("--ppo.learning-rate", "1e-4"),
    *("--eval-episodes", "1", "--track", "disabled"),
]
ROLLOUT = 128
# Equal steps per rollout from two environments.
TWO_GAMES = ["--num-envs", "2", "--ppo.n-steps", "64"]


def load_script(name: str) -> ModuleType:
    """The module of ``scripts/<name>.py``; its ``main`` raises what the script would print."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look up the names of their annotations here.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def command(script: str, *arguments: object) -> list[str]:
    return [sys.executable, str(ROOT / "scripts" / f"{script}.py"), *map(str, arguments)]


def environment() -> dict[str, str]:
    # pytest has its own setting for the path; users install the package.
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def run_script(
    script: str, *arguments: object, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(script, *arguments), env=environment(), cwd=cwd, capture_output=True, text=True
    )


def signal_when_begun(
    number: signal.Signals, directory: Path, runs: str, script: str, *arguments: object
) -> Path:
    """Starts a script, signals it once a run has a checkpoint, and returns that run's directory.

    ``runs`` are the runs in ``directory``, such as ``runs/*``.
    """
    process = subprocess.Popen(
        command(script, *arguments),
        env=environment(),
        cwd=GAMES,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background jobs ignore Ctrl-C, and so would this process in their midst.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr is not None
    while not (begun := list(directory.glob(f"{runs}/checkpoints/[0-9]*"))):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.1)
    os.kill(process.pid, number)
    said = process.communicate(timeout=600)[1]
    if number == signal.SIGINT:
        assert process.returncode == 130, said
        assert "--resume" in said
    return begun[0].parents[1]


def assert_went_on(run: Path, log: Path) -> None:
    """Checks that a run whose parent had gone stopped with a checkpoint, and was resumed."""
    assert len(read(run / "attempts.json")["attempts"]) == 2
    said = log.read_text()
    assert "stopped at step" in said
    assert "resuming from step" in said


def read(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text())
    return document


def metrics(run: Path) -> list[dict[str, Any]]:
    return RunDirectory.open(run).metrics()


def steps_of(run: Path) -> list[int]:
    """The steps of all checkpoints."""
    return sorted(int(p.name) for p in (run / "checkpoints").iterdir() if p.name.isdecimal())


def policy(run: Path) -> dict[str, bytes]:
    """The bytes of the newest checkpoint's parameters."""
    newest = run / "checkpoints" / f"{steps_of(run)[-1]:012d}"
    return {
        name: array.tobytes() for name, array in load_file(newest / "policy.safetensors").items()
    }
