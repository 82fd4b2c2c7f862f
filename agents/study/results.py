"""What became of each run of a study, and the table of it."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from agents.study.plan import StudyRun, deviations
from envs.errors import UserError
from rlcnn.report import RunResult, State
from rlcnn.runs.directory import RunDirectory
from rlcnn.runs.files import read_json, write_atomic

RESULTS = "results.csv"
FAILURES = "failures"

# Of a file of metrics, whose last rows are wanted several times a second.
_TAIL_BYTES = 1 << 14


def read_result(study: Path, run: StudyRun) -> RunResult:
    """How a run stands; nothing is changed. What cannot be read of it counts as failed."""
    path = study / run.directory
    common: dict[str, Any] = {
        "game": run.game,
        "arm": run.arm,
        "seed": run.seed,
        "directory": run.directory,
    }
    try:
        failure = failure_path(study, run)
        reason = str(read_json(failure).get("reason", "")) if failure.exists() else ""
        if not (path / "config.json").is_file():
            return RunResult(**common, state="failed" if reason else "waiting", reason=reason)
        options = RunDirectory.open(path).config.get("config")
        if not isinstance(options, dict):
            told = f"{path / 'config.json'} holds no training configuration"
            return RunResult(**common, state="failed", reason=told)
        if otherwise := deviations(run.config, options):
            told = (
                f"it was trained otherwise than planned: {'; '.join(otherwise)}; delete its"
                " directory to begin it anew"
            )
            return RunResult(**common, state="failed", reason=told)
        figures = read_figures(path, run.config.total_steps)
        if figures is None:
            steps = last_figures(path)[0]
            state: State = "failed" if reason else "begun"
            return RunResult(**common, state=state, steps=steps, reason=reason)
        return RunResult(**common, state="done", **figures)
    except UserError as error:
        return RunResult(**common, state="failed", reason=str(error))


def read_figures(run_dir: Path, total_steps: int) -> dict[str, Any] | None:
    """What a run that took so many steps was worth, and what it took, as :class:`RunResult` has it.

    Returns:
        None while it has not taken them all and been judged.

    Raises:
        UserError: its ``summary.json`` is damaged.
    """
    summary = RunDirectory.open(run_dir).summary()
    try:
        if summary is None or int(summary["steps"]) < total_steps:
            return None
        judged = summary["eval"]
        score = float(judged["mean_return"])
        if not math.isfinite(score):
            raise ValueError(f"the mean return is {score}")
        return {
            "score": score,
            "std": float(judged["std"]),
            "episodes": int(judged["episodes"]),
            "steps": int(summary["steps"]),
            "wall_seconds": float(summary["wall_seconds"]),
            "steps_per_second": float(summary["steps_per_second"]),
        }
    except (KeyError, TypeError, ValueError) as error:
        told = f"{run_dir / 'summary.json'} is damaged: {type(error).__name__}: {error}"
        raise UserError(told) from error


def failure_path(study: Path, run: StudyRun) -> Path:
    """Where the reason is kept for which a run failed."""
    return study / FAILURES / f"{Path(run.directory).name}.json"


def last_figures(run_dir: Path) -> tuple[int, float | None]:
    """The last step that a run, perhaps in progress, logged, and the mean return by then."""
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


def write_results(study: Path, results: Sequence[RunResult]) -> Path:
    """Writes ``results.csv``, a row for each run whatever became of it; returns its path.

    Raises:
        UserError: the disk is full or cannot be written.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, [f.name for f in fields(RunResult)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(result) for result in results)
    write_atomic(study / RESULTS, text.getvalue())
    return study / RESULTS


def results_table(
    results: Sequence[RunResult], games: Sequence[str], arms: Sequence[str]
) -> list[str]:
    """Lines of text that show each arm's scores in each game, one for each seed."""
    rows = [["game", "arm", "done", "failed", "mean", "scores of the seeds"]]
    for game in games:
        for arm in arms:
            mine = [result for result in results if (result.game, result.arm) == (game, arm)]
            scores = [result.score for result in mine if result.score is not None]
            rows.append(
                [
                    game,
                    arm,
                    f"{len(scores)}/{len(mine)}",
                    str(sum(result.state == "failed" for result in mine)),
                    f"{sum(scores) / len(scores):.2f}" if scores else "-",
                    " ".join("-" if r.score is None else f"{r.score:.1f}" for r in mine),
                ]
            )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def problems(results: Sequence[RunResult]) -> list[str]:
    """A line for each run without a result, which no figure may hide."""
    told = []
    for result in results:
        name = f"{result.game}, {result.arm}, seed {result.seed}"
        if result.state == "failed":
            told.append(f"failed: {name}: {result.reason} ({result.directory})")
        elif result.state != "done":
            told.append(f"no result yet: {name}: {result.steps:,} steps taken")
    return told
