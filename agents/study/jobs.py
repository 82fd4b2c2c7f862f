"""Trainings as jobs of a launcher, and how they ended; studies and searches share them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from agents.launchers.local import Job, Outcome
from agents.study.plan import StudyRun
from agents.study.results import FAILURES, failure_path, read_result, train_or_resume
from envs.errors import EnvironmentFailure
from rlcnn.runs.files import disk_errors, write_json_atomic

LOGS = "logs"


def make_directories(path: Path, runs: str) -> None:
    """Makes the directories of runs, logs and failures within ``path``."""
    with disk_errors(path):
        for directory in (runs, LOGS, FAILURES):
            (path / directory).mkdir(exist_ok=True)


def training_job(path: Path, run: StudyRun, threads: int, command: Sequence[str]) -> Job:
    """The job that trains a run, new or from its last checkpoint.

    Args:
        path: the directory of the study or search.
        run: the run.
        threads: CPU threads of the training.
        command: the command line that began the study or search.
    """
    labels = {"group": path.resolve().name, "tags": [run.arm, run.game]}
    config = replace(run.config, num_threads=threads)
    # Workers of a cluster may have another working directory.
    run_dir = (path / run.directory).absolute()
    task = partial(_train, config, run_dir, labels, list(command))
    return Job(run.name, task, (path / LOGS / f"{run_dir.name}.log").absolute())


def record_outcome(path: Path, run: StudyRun, outcome: Outcome) -> str:
    """Writes the reason of a failure, or removes an earlier one; returns the outcome as text."""
    failure = failure_path(path, run)
    if outcome.state == "failed":
        when = datetime.now(UTC).isoformat(timespec="seconds")
        write_json_atomic(failure, {"run": run.name, "reason": outcome.reason, "when": when})
        return f"failed: {outcome.reason}"
    if outcome.state == "stopped":
        return "stopped"
    failure.unlink(missing_ok=True)
    result = read_result(path, run)
    return f"mean return {result.score:.2f}" if result.score is not None else result.reason


def _train(*arguments: Any) -> None:
    try:
        train_or_resume(*arguments)
    except EnvironmentFailure as error:
        # Without the command that goes on with the run alone: the study has its own.
        raise error.__cause__ or error from None
