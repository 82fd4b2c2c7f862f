"""What a study has done in processes of its own: one training."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agents.config import TrainConfig
from agents.study.plan import RUNTIME_OPTIONS
from agents.study.results import read_figures
from agents.train.training import resume, train
from envs.errors import UserError
from rlcnn.runs.directory import RunDirectory, RunInUseError
from rlcnn.runs.progress import make_console

# A process that lost the one which started it stops by itself, when an update and a checkpoint are
# done; until then it holds its run.
_SECONDS_IN_USE = 120.0


def train_or_resume(
    config: TrainConfig, run_dir: Path, labels: Mapping[str, Any], command: list[str]
) -> None:
    """Trains a run of a study to its end, from wherever it stands.

    Args:
        config: the training.
        run_dir: where it lies, or shall.
        labels: see :func:`agents.train.training.train`.
        command: the command line that started the study.

    Raises:
        UserError: whatever a user can mend.
        TrainingStopped: it was asked to stop; a checkpoint was cut.
    """
    if not (run_dir / "config.json").is_file():
        # Killed before it was a run: there is nothing in it.
        shutil.rmtree(run_dir, ignore_errors=True)
        train(config, run_dir, console=make_console(), command=command, labels=labels)
        return
    _wait_until_free(run_dir)
    try:
        if read_figures(run_dir, config.total_steps) is not None:
            return
    except UserError as error:
        # The checkpoint holds all that the agent is: it is judged again.
        print(f"put aside: {error}", file=sys.stderr)
        summary = run_dir / "summary.json"
        summary.replace(summary.with_name("summary.damaged.json"))
    changes = {name: getattr(config, name) for name in RUNTIME_OPTIONS}
    resume(run_dir, changes, console=make_console(), command=command)


def _wait_until_free(run_dir: Path) -> None:
    deadline = time.monotonic() + _SECONDS_IN_USE
    while True:
        try:
            RunDirectory.open(run_dir, write=True).close()
            return
        except RunInUseError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.5)
