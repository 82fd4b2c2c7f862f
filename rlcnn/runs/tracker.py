"""What a tracker records of a run, and how the run appears in it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from numbers import Real
from pathlib import Path
from typing import Any, Literal, get_args

from envs.errors import UserError, nearest
from rlcnn.runs.directory import RunDirectory

TrackMode = Literal["disabled", "offline", "online"]
Service = Literal["wandb", "trackio"]

TRACKIO_NAME = "trackio.json"
"""File of a run with its name in trackio."""
LONGEST_TAG, LONGEST_GROUP = 64, 128  # characters, in Weights & Biases

# Metrics whose best and last values are in the summary: the mean return of training games, that of
# an evaluation, and the accuracy on held-out images.
_HIGHLIGHTS = ("rollout/ep_rew_mean", "eval/mean_return", "test/top1")


class Tracker:
    """Records a run. ``step`` counts agent steps, or updates of supervised training.

    The methods do nothing here: a tracker leaves out what it cannot show.
    """

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """Record metrics of ``step``, named like ``train/loss``."""

    def video(self, step: int, key: str, path: Path, caption: str) -> None:
        """Record the film (H.264 MP4) at ``path``, under a key like ``video/game``."""

    def images(self, step: int, paths: Mapping[str, Path]) -> None:
        """Record pictures (PNG) under their keys, such as ``plots/confusion``."""

    def model(self, files: Sequence[Path], metadata: Mapping[str, Any]) -> None:
        """Record the trained model: its files, under their names, and JSON values about it."""

    def close(self) -> None:
        """Write what is still buffered and close files."""


@dataclass(frozen=True)
class RunCard:
    """How a run appears beside others in a tracker.

    Attributes:
        options: the configuration, by the options' names; a section is a nested mapping.
        job_type: "train", "pretrain" or "report".
        group: name of what the run belongs to: its setting, without the seed, or its study.
        tags: names to filter by.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    job_type: str | None = None
    group: str | None = None
    tags: Sequence[str] = ()

    def with_labels(self, labels: Mapping[str, Any]) -> RunCard:
        """The same card with a "group" in place of its own, and with more "tags" before its own."""
        group = labels.get("group") or self.group
        tags = filter(None, (*labels.get("tags", ()), *self.tags))
        return replace(
            self,
            group=group and shortened(group, LONGEST_GROUP),
            tags=list(dict.fromkeys(shortened(tag, LONGEST_TAG) for tag in tags)),
        )


def shortened(text: str, most: int, name: str | None = None) -> str:
    """``text``, cut if it is longer than ``most``, with a digest of ``name`` to keep it unique.

    ``name`` is the text itself by default.
    """
    if len(text) <= most:
        return text
    return f"{text[: most - 9]}-{hashlib.sha256((name or text).encode()).hexdigest()[:8]}"


def provenance_of(run: RunDirectory) -> dict[str, Any]:
    """Where the present attempt of a run comes from: its number, command, versions and machine."""
    attempt = run.last_attempt
    facts = {"attempt": run.attempts, **attempt, **attempt.get("provenance", {})}
    facts.pop("provenance", None)
    return {**facts, **({"data": run.config["data"]} if "data" in run.config else {})}


def summary_of(run: RunDirectory) -> dict[str, Any]:
    """The best and the last return or accuracy of a run, its steps, and its figures at the end."""
    rows, found = run.metrics(), dict[str, Any]()
    for name in _HIGHLIGHTS:
        if values := [row[name] for row in rows if isinstance(row.get(name), Real)]:
            found |= {f"best/{name}": max(values), f"last/{name}": values[-1]}
    written, steps = run.summary() or {}, rows[-1]["step"] if rows else 0
    # A run that is extended has a summary of its end before.
    if written.get("steps") == steps:
        found |= {name: value for name, value in written.items() if isinstance(value, Real)}
    return {**found, "steps": steps}


def check_tracking(mode: str, service: str, log_model: bool = False) -> None:
    """Refuses options of tracking that cannot work, before a run begins.

    Raises:
        UserError: an option is unknown, the service's package is missing, or ``log_model`` has
            nowhere to go.
    """
    for option, value, choices in (
        ("track", mode, get_args(TrackMode)),
        ("tracker", service, get_args(Service)),
    ):
        if value not in choices:
            raise UserError(
                f'--{option} "{value}" is unknown: expected one of {", ".join(choices)}.'
                f"{nearest(value, choices)}"
            )
    if mode == "disabled":
        if log_model:
            raise UserError(
                "--log-model needs a tracker: give --track offline or online (--track is disabled)"
            )
    elif service == "trackio" and find_spec("trackio") is None:
        raise UserError(
            '--tracker trackio needs trackio, which is not installed: pip install "rlcnn[trackio]"'
        )
