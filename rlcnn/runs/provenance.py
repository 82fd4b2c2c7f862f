"""Where a result comes from: versions, machine and source revision."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import rlcnn
from envs.machine.cores import usable_cores

_PACKAGES = ("torch", "stable-baselines3", "ale-py", "gymnasium", "numpy", "safetensors")


def provenance() -> dict[str, Any]:
    """Everything about software and machine that can change a result, ready for JSON.

    Returns:
        ``versions`` (name -> version, None where not installed), ``platform``, ``cpu`` (model),
        ``cores`` (that this process may use), ``gpus`` (names), ``git_commit``, ``git_dirty`` and
        ``git_remote`` (its address without a password; all None unless this package runs from a git
        checkout of its own source).
    """
    commit, dirty, remote = _git_revision()
    return {
        "versions": {
            "rlcnn": rlcnn.__version__,
            "python": platform.python_version(),
            **{name: _version(name) for name in _PACKAGES},
        },
        "platform": platform.platform(),
        "cpu": _cpu_model(),
        "cores": usable_cores(),
        "gpus": _gpus(),
        "git_commit": commit,
        "git_dirty": dirty,
        "git_remote": remote,
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())


def _gpus() -> list[str]:
    import torch

    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]


def _git_revision() -> tuple[str | None, bool | None, str | None]:
    # An installed copy may lie in a virtual environment inside somebody else's repository, whose
    # commit says nothing about us: only a checkout that tracks this very file counts.
    if _git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None, None, None
    changes = _git("status", "--porcelain", "--untracked-files=no")
    address = _git("remote", "get-url", "origin")
    return (
        _git("rev-parse", "HEAD"),
        None if changes is None else bool(changes),
        # A user and password or token stand before the host: https://name:token@host/path.
        address and re.sub(r"^(https?://)[^/]*@", r"\1", address),
    )


def _git(*arguments: str) -> str | None:
    try:
        return subprocess.run(
            ["git", *arguments],
            cwd=Path(__file__).parent,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
