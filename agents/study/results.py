"""The runs of a study: training one, reading what each has reached, and the table of all."""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from agents.config import TrainConfig
from agents.study.plan import RUNTIME_OPTIONS, StudyPlan, StudyRun, deviations
from agents.train.training import resume, train
from envs.errors import UserError
from envs.registry import game_name
from rlcnn.report import RunResult, State
from rlcnn.runs.directory import RunDirectory
from rlcnn.runs.files import read_json, write_atomic
from rlcnn.runs.lock import RunInUseError
from rlcnn.runs.progress import make_console
from rlcnn.stats import RandomAgent

PLAN = "study.json"
RESULTS = "results.csv"
FAILURES = "failures"

# Bytes at the end of a metrics file: the display reads the last rows every second.
_TAIL_BYTES = 1 << 14

# A worker that lost its parent stops after the current update and a checkpoint, and holds its run
# until then.
_SECONDS_IN_USE = 120.0


@dataclass(frozen=True)
class StudyResults:
    """All that a study in the directory ``path`` has shown, finished or not.

    ``runs`` are in the plan's order; ``random_returns`` are those of an agent that acts at random,
    by the games' ids.
    """

    path: Path
    plan: StudyPlan
    runs: Sequence[RunResult]
    random_returns: Mapping[str, Sequence[float]]

    @property
    def complete(self) -> bool:
        """Whether every run has a result."""
        return all(run.state == "done" for run in self.runs)

    @property
    def games(self) -> list[str]:
        """Names of the games, as runs give them."""
        return [game_name(game) for game in self.plan.games]

    @cached_property
    def random_agent(self) -> RandomAgent:
        """Statistics of random play in each game, which needs two returns, by the runs' names."""
        return RandomAgent.from_returns(
            {game_name(game): returns for game, returns in self.random_returns.items()}
        )

    @cached_property
    def document(self) -> dict[str, Any]:
        """The content of ``study.json``; ``UserError`` if it is missing or damaged."""
        return read_json(self.path / PLAN)

    def runs_of(self, game: str, arm: str) -> list[RunResult]:
        """The runs of an arm in a game, seed by seed."""
        return [run for run in self.runs if (run.game, run.arm) == (game, arm)]


def train_or_resume(
    config: TrainConfig, run_dir: Path, labels: Mapping[str, Any], command: list[str]
) -> None:
    """Trains a run of a study to its end, new or from its last checkpoint.

    ``run_dir`` may not exist yet; ``labels`` are those of :func:`agents.train.training.train`, and
    ``command`` is the command line that started the study.

    Raises:
        UserError: an error that a user can correct.
        TrainingStopped: the training was stopped and saved a checkpoint.
    """
    if not (run_dir / "config.json").is_file():
        # Killed before the run began: the directory holds nothing of use.
        shutil.rmtree(run_dir, ignore_errors=True)
        train(config, run_dir, console=make_console(), command=command, labels=labels)
        return
    deadline = time.monotonic() + _SECONDS_IN_USE
    while True:
        try:
            RunDirectory.open(run_dir, write=True).close()
            break
        except RunInUseError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.5)
    try:
        if read_figures(run_dir, config.total_steps) is not None:
            return
    except UserError as error:
        # The checkpoint holds the whole agent, so it is only evaluated again.
        print(f"moved to summary.damaged.json: {error}", file=sys.stderr)
        summary = run_dir / "summary.json"
        summary.replace(summary.with_name("summary.damaged.json"))
    changes = {name: getattr(config, name) for name in RUNTIME_OPTIONS}
    resume(run_dir, changes, console=make_console(), command=command)


def read_result(study: Path, run: StudyRun) -> RunResult:
    """The state of a run, which it does not change. A run that cannot be read counts as failed."""
    path = study / run.directory
    result = partial(RunResult, run.game, run.arm, run.seed, directory=run.directory)
    try:
        failure = failure_path(study, run)
        reason = str(read_json(failure).get("reason", "")) if failure.exists() else ""
        if not (path / "config.json").is_file():
            return result("failed" if reason else "waiting", reason=reason)
        options = RunDirectory.open(path).config.get("config")
        if not isinstance(options, dict):
            raise UserError(f"{path / 'config.json'} holds no training configuration")
        if found := deviations(run.config, options):
            raise UserError(
                f"its options are not those of the plan: {'; '.join(found)}; delete its directory"
                " to train it again"
            )
        if figures := read_figures(path, run.config.total_steps):
            return result("done", **figures)
        state: State = "failed" if reason else "begun"
        return result(state, reason=reason, steps=last_figures(path)[0])
    except UserError as error:
        return result("failed", reason=str(error))


def read_figures(run_dir: Path, total_steps: int) -> dict[str, Any] | None:
    """The figures of a finished run, by their names in :class:`RunResult`.

    None until the run has taken ``total_steps`` and is evaluated.

    Raises:
        UserError: its ``summary.json`` is damaged.
    """
    summary = RunDirectory.open(run_dir).summary()
    try:
        if summary is None or int(summary["steps"]) < total_steps:
            return None
        evaluation = summary["eval"]
        score = float(evaluation["mean_return"])
        if not math.isfinite(score):
            raise ValueError(f"the mean return is {score}")
        return {
            "score": score,
            "std": float(evaluation["std"]),
            "episodes": int(evaluation["episodes"]),
            "steps": int(summary["steps"]),
            "wall_seconds": float(summary["wall_seconds"]),
            "steps_per_second": float(summary["steps_per_second"]),
            "best_game": max(map(float, evaluation.get("returns", ())), default=None),
        }
    except (KeyError, TypeError, ValueError) as error:
        message = f"{run_dir / 'summary.json'} is damaged: {type(error).__name__}: {error}"
        raise UserError(message) from error


def failure_path(study: Path, run: StudyRun) -> Path:
    """The file that keeps why a run failed."""
    return study / FAILURES / f"{Path(run.directory).name}.json"


def last_figures(run_dir: Path) -> tuple[int, float | None]:
    """The last logged step of a run, perhaps in progress, and the mean return by then."""
    try:
        with open(run_dir / "metrics.jsonl", "rb") as file:
            file.seek(max(0, file.seek(0, 2) - _TAIL_BYTES))
            lines = file.read().splitlines(keepends=True)
    except OSError:
        return 0, None
    step, mean = 0, None
    for line in lines:
        try:
            row = json.loads(line)
            step, mean = int(row["step"]), row.get("rollout/ep_rew_mean", mean)
        except (ValueError, KeyError, TypeError, AttributeError):
            # The first line may lack its beginning, the last its end.
            continue
    return step, mean


def write_results(study: Path, plan: StudyPlan, results: Sequence[RunResult]) -> Path:
    """Writes ``results.csv``, one row for each run in whatever state; returns its path.

    The last column has the arm in full, the column ``arm`` its label.
    """
    text = io.StringIO()
    full_name = dict(zip(plan.arm_names, plan.full_names, strict=True))
    names = [*(f.name for f in fields(RunResult)), "full_arm"]
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({**asdict(result), "full_arm": full_name[result.arm]} for result in results)
    write_atomic(study / RESULTS, text.getvalue())
    return study / RESULTS


def results_table(results: StudyResults) -> list[str]:
    """Lines of text: the scores of each arm in each game, one for each seed.

    A line below names an arm in full if its label is shorter.
    """
    rows = [["game", "arm", "done", "failed", "mean", "minutes", "scores of the seeds"]]
    for game in results.games:
        for arm in results.plan.arm_names:
            runs = results.runs_of(game, arm)
            scores = [run.score for run in runs if run.score is not None]
            seconds = [run.wall_seconds for run in runs if run.wall_seconds is not None]
            rows.append(
                [
                    game,
                    arm,
                    f"{len(scores)}/{len(runs)}",
                    str(sum(run.state == "failed" for run in runs)),
                    f"{sum(scores) / len(scores):.2f}" if scores else "-",
                    f"{sum(seconds) / len(seconds) / 60:.1f}" if seconds else "-",
                    " ".join("-" if run.score is None else f"{run.score:.1f}" for run in runs),
                ]
            )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    plan = results.plan
    return [
        *(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ),
        *(
            f"{label}: {full}"
            for label, full in zip(plan.arm_names, plan.full_names, strict=True)
            if label != full
        ),
    ]


def problems(results: StudyResults) -> list[str]:
    """A line for each run without a result, so that no figure hides it."""
    lines = []
    for run in results.runs:
        if run.state == "failed":
            lines.append(f"failed: {run.name}: {run.reason} ({run.directory})")
        elif run.state != "done":
            lines.append(f"no result yet: {run.name}: {run.steps:,} steps taken")
    return lines
