"""Pages in Weights & Biases, each one run: a report in the group of its study, or a gallery."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from envs.errors import first_line
from rlcnn.report.content import Report, RunResult
from rlcnn.report.style import Drawing
from rlcnn.runs.files import write_json_atomic
from rlcnn.runs.tracking.service import start_or_warn
from rlcnn.runs.tracking.tracker import RunCard, TrackMode
from rlcnn.runs.tracking.weights_and_biases import start_wandb, wandb_identity

JOB_TYPE = "report"
_log = logging.getLogger(__name__)


def track_report(
    report: Report,
    page: Path,
    drawings: Mapping[str, Drawing],
    mode: TrackMode,
    *,
    project: str,
    group: str,
) -> None:
    """Logs the figures as images, the runs as a table, the films and the page itself.

    ``page`` is in the directory of ``figures/``, which holds the ``drawings``. The run is in the
    ``group`` of the study's trainings; see :func:`track_page`.

    Raises:
        UserError: the disk is full or cannot be written.
    """
    options = {
        "games": list(report.games),
        "arms": report.arm_names,
        "control": report.control,
        "command": report.command,
        **report.facts,
    }
    card = RunCard(options, JOB_TYPE).with_labels({"group": group, "tags": [JOB_TYPE]})
    track_page(
        page,
        lambda: _shown(report, page, drawings),
        mode,
        card,
        project=project,
        name=f"report of {group}",
        summary=_summary(report),
    )


def track_page(
    page: Path,
    shown: Callable[[], Mapping[str, Any]],
    mode: TrackMode,
    card: RunCard,
    *,
    project: str,
    name: str,
    summary: Mapping[str, Any] | None = None,
) -> None:
    """Logs what ``shown`` returns, W&B's images, tables and films by key, and a page.

    ``wandb.json`` beside the page keeps the id of the run, so that all versions of a page are one
    run. An unchanged page is not logged again. If W&B fails, there is one line of warning.

    Raises:
        UserError: the disk is full or cannot be written.
    """
    if mode == "disabled":
        return
    directory = page.parent
    identity = wandb_identity(directory)
    # A change of mode, such as offline to online, logs an unchanged page again.
    logged = hashlib.sha256(page.read_bytes()).hexdigest() + f" {mode}"
    if identity.get("logged") == logged:
        return
    run = start_or_warn(
        mode,
        lambda attempt: start_wandb(
            directory, attempt, card, project=project, name=name, identity=identity["id"]
        ),
    )
    if run is None:
        return
    try:
        # W&B needs a step that grows, also over the versions of one page.
        row = int(1000 * (time.time() - float(identity["began"])))
        run.log(dict(shown()), step=row, commit=True)
        run.summary.update(dict(summary or {}))
        run.finish()
    except Exception as error:
        _log.warning("Weights & Biases misses the report: %s", first_line(error))
        return
    write_json_atomic(directory / "wandb.json", {**identity, "logged": logged})


def _shown(report: Report, page: Path, drawings: Mapping[str, Drawing]) -> dict[str, Any]:
    import wandb

    columns = [field.name for field in fields(RunResult)]
    rows = [[getattr(run, name) for name in columns] for run in report.runs]
    shown: dict[str, Any] = {
        f"report/{name}": wandb.Image(str(page.parent / "figures" / f"{name}.png"), caption=d.title)
        for name, d in drawings.items()
    }
    shown["report/runs"] = wandb.Table(columns=[*columns], data=rows)
    shown["report/page"] = wandb.Html(page.read_text(), inject=False)
    for film in report.films:
        if film.path is not None:
            shown[f"video/{film.key}"] = wandb.Video(
                str(film.path), caption=film.caption, format="mp4"
            )
    return shown


def _summary(report: Report) -> dict[str, Any]:
    states = [run.state for run in report.runs]
    summary: dict[str, Any] = {f"runs/{s}": states.count(s) for s in sorted(set(states))}
    for verdict in report.verdicts:
        summary[f"verdict/{verdict.treatment}"] = verdict.sentence
        summary[f"difference/{verdict.treatment}"] = verdict.difference.point
    return summary
