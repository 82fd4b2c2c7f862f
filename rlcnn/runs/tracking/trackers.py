"""TensorBoard, Weights & Biases and the run's own metrics file behind one small interface."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Any

from stable_baselines3.common.logger import KVWriter

from rlcnn.runs.directory import RunDirectory
from rlcnn.runs.tracking.service import start_or_warn
from rlcnn.runs.tracking.tracker import RunCard, Service, Tracker, TrackMode, check_tracking
from rlcnn.runs.tracking.trackio_runs import TrackioTracker
from rlcnn.runs.tracking.weights_and_biases import WandbTracker

try:
    from rlcnn.runs.tracking.tensorboard import TensorBoardTracker
except ImportError as error:
    # A training goes on without it.
    _tensorboard_missing: str | None = str(error)
else:
    _tensorboard_missing = None

_SERVICES: dict[str, type[WandbTracker | TrackioTracker]] = {
    "wandb": WandbTracker,
    "trackio": TrackioTracker,
}
_log = logging.getLogger(__name__)


def make_tracker(
    run: RunDirectory,
    mode: TrackMode = "offline",
    service: Service = "wandb",
    *,
    card: RunCard | None = None,
    project: str = "rlcnn",
    purge_step: int | None = None,
) -> Tracker:
    """A tracker that feeds ``metrics.jsonl``, TensorBoard and, unless disabled, a service.

    If the service cannot start, for example without an account or a network, one line warns and
    training goes on: ``online`` falls back to ``offline``, which needs neither. A missing
    TensorBoard also costs one line only.

    Args:
        run: A run held for writing. The "labels" in its configuration, a "group" and "tags", put
            it beside others.
        mode: Whether the service is off, records on this machine (W&B into ``wandb/`` of the run
            directory), or also uploads.
        service: Weights & Biases, or trackio.
        card: How the run appears beside others.
        project: Project there.
        purge_step: On a resume, the first step to be repeated: TensorBoard hides what it holds
            from there on. :meth:`RunDirectory.truncate_metrics` cuts ``metrics.jsonl``.

    Raises:
        UserError: ``mode`` or ``service`` is unknown or not installed, or the disk is full or
            cannot be written.
    """
    check_tracking(mode, service)
    card = (card or RunCard()).with_labels(run.config.get("labels") or {})
    trackers: list[Tracker] = [MetricsTracker(run)]
    if _tensorboard_missing is None:
        board = TensorBoardTracker(run.tb_dir, purge_step)
        board.describe(card.options, run.last_attempt.get("command"))
        trackers.append(board)
    else:
        _log.warning("TensorBoard is left out: %s", _tensorboard_missing)
    kind = _SERVICES[service]
    start = partial(kind, run, card=card, project=project)
    if started := start_or_warn(mode, start, kind.service):
        trackers.append(started)
    return _TrackerGroup(trackers)


class MetricsTracker(Tracker):
    """Appends to the run's ``metrics.jsonl``; a film's row holds its path within the run."""

    def __init__(self, run: RunDirectory) -> None:
        self._run = run

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        self._run.append_metrics(step, values)

    def video(self, step: int, key: str, path: Path, caption: str) -> None:
        relative = os.path.relpath(Path(path).resolve(), self._run.path.resolve())
        self._run.append_metrics(step, {key: Path(relative).as_posix()})


class _TrackerGroup(Tracker):
    """Several trackers as one, called in order."""

    def __init__(self, members: Sequence[Tracker]) -> None:
        self._members = members

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        for member in self._members:
            member.log(step, values)

    def video(self, step: int, key: str, path: Path, caption: str) -> None:
        for member in self._members:
            member.video(step, key, path, caption)

    def images(self, step: int, paths: Mapping[str, Path]) -> None:
        for member in self._members:
            member.images(step, paths)

    def model(self, files: Sequence[Path], metadata: Mapping[str, Any]) -> None:
        for member in self._members:
            member.model(files, metadata)

    def close(self) -> None:
        # A member that fails must not keep the others from closing.
        with ExitStack() as stack:
            for member in self._members:
                stack.callback(member.close)


class TrackerWriter(KVWriter):
    """Lets stable-baselines3's logger feed a tracker: ``Logger(None, [TrackerWriter(tracker)])``.

    Numbers are logged under the logger's own step; everything else, and what is excluded from
    TensorBoard, is left out. The tracker stays open when the logger is closed.

    Args:
        tracker: what is fed.
        clock: seconds spent on the run, logged as ``time/wall_seconds`` with each dump.
    """

    def __init__(self, tracker: Tracker, clock: Callable[[], float] | None = None) -> None:
        self._tracker, self._clock = tracker, clock

    def write(
        self,
        key_values: dict[str, Any],
        key_excluded: dict[str, tuple[str, ...]],
        step: int = 0,
    ) -> None:
        """Log one dump of the logger; called by stable-baselines3."""
        values = {
            key: float(value)
            for key, value in key_values.items()
            if isinstance(value, Real) and "tensorboard" not in (key_excluded.get(key) or ())
        }
        if values:
            if self._clock is not None:
                values["time/wall_seconds"] = self._clock()
            self._tracker.log(step, values)

    def close(self) -> None:
        """Nothing: the tracker's maker closes it."""
