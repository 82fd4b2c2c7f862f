"""TensorBoard, Weights & Biases and the run's own metrics file behind one small interface."""

from __future__ import annotations

import logging
import os
import platform
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from numbers import Real
from pathlib import Path
from typing import Any, Protocol, get_args

from stable_baselines3.common.logger import KVWriter

from envs.errors import UserError, nearest
from rlcnn.runs.directory import RunDirectory
from rlcnn.runs.files import disk_errors
from rlcnn.runs.weights_and_biases import TrackMode, WandbTracker, start_or_warn

try:
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter
except ImportError as error:
    # A training goes on without it.
    _tensorboard_missing: str | None = str(error)
else:
    _tensorboard_missing = None

_MODES = get_args(TrackMode)
_log = logging.getLogger(__name__)


class Tracker(Protocol):
    """Records a run's metrics and films. ``step`` counts agent steps."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Record metrics of ``step``, named like ``train/loss``."""

    def video(self, step: int, key: str, path: str | os.PathLike[str], caption: str) -> None:
        """Record the film (H.264 MP4) at ``path``, under a key like ``video/eval``."""

    def close(self) -> None:
        """Write what is still buffered and close files; a second call does nothing."""


def make_tracker(
    run: RunDirectory,
    mode: TrackMode = "offline",
    *,
    project: str = "rlcnn",
    name: str | None = None,
    purge_step: int | None = None,
) -> Tracker:
    """A tracker that feeds ``metrics.jsonl``, TensorBoard and, unless disabled, W&B.

    If Weights & Biases cannot start, for example without an account or a network, one line warns
    and training goes on: ``online`` falls back to ``offline``, which needs neither. A missing
    TensorBoard also costs one line only.

    Args:
        run: A run held for writing. W&B shows its configuration; the "labels" in it, a "group" and
            "tags", put the run beside others there.
        mode: Whether W&B is off, records into ``wandb/`` of the run directory, or also uploads.
        project: W&B project.
        name: W&B display name; by default the run directory's name.
        purge_step: On a resume, the first step to be repeated: TensorBoard hides what it holds
            from there on. :meth:`RunDirectory.truncate_metrics` cuts ``metrics.jsonl``.

    Raises:
        UserError: ``mode`` is unknown, or the disk is full or cannot be written.
    """
    if mode not in _MODES:
        raise UserError(
            f'unknown tracking mode "{mode}"; choose one of {", ".join(_MODES)}.'
            f"{nearest(mode, _MODES)}"
        )
    trackers: list[Tracker] = [MetricsTracker(run)]
    if _tensorboard_missing is None:
        trackers.append(TensorBoardTracker(run.tb_dir, purge_step))
    else:
        _log.warning("TensorBoard is left out: %s", _tensorboard_missing)
    wandb = start_or_warn(
        mode, lambda attempt: WandbTracker(run, attempt, project=project, name=name)
    )
    return _TrackerGroup([*trackers, wandb] if wandb else trackers)


class MetricsTracker:
    """Appends to the run's ``metrics.jsonl``; a film's row holds its path within the run."""

    def __init__(self, run: RunDirectory) -> None:
        """Take a run held for writing."""
        self._run = run

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Append one row."""
        self._run.append_metrics(step, values)

    def video(self, step: int, key: str, path: str | os.PathLike[str], caption: str) -> None:
        """Append one row with the film's path, relative to the run directory."""
        relative = os.path.relpath(Path(path).resolve(), self._run.path.resolve())
        self._run.append_metrics(step, {key: Path(relative).as_posix()})

    def close(self) -> None:
        """Do nothing: nothing is buffered."""


class TensorBoardTracker:
    """Writes scalars as a TensorBoard event file. Films are not shown there.

    Written here and not by torch's ``SummaryWriter``, whose thread would meet a full disk out of
    reach of the caller and print its traceback.
    """

    def __init__(self, directory: Path, purge_step: int | None = None) -> None:
        """Open a new event file; see :func:`make_tracker` for ``purge_step``."""
        self._directory = directory
        # Named so that files sort by age: TensorBoard reads them in that order.
        name = f"events.out.tfevents.{time.time_ns()}.{platform.node()}.{os.getpid()}"
        with disk_errors(directory):
            self._file = (directory / name).open("xb")
            self._records = RecordWriter(self._file)
        events = [Event(wall_time=time.time(), file_version="brain.Event:2")]
        if purge_step is not None:
            restart = SessionLog(status=SessionLog.START)
            events.append(Event(wall_time=time.time(), step=purge_step, session_log=restart))
        self._write(*events)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Write all values as one event, at once: a killed run loses no row."""
        scalars = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._write(Event(wall_time=time.time(), step=step, summary=Summary(value=scalars)))

    def video(self, step: int, key: str, path: str | os.PathLike[str], caption: str) -> None:
        """Do nothing: TensorBoard would need the frames again, as a GIF."""

    def close(self) -> None:
        """Close the event file."""
        with disk_errors(self._directory):
            self._file.close()

    def _write(self, *events: Event) -> None:
        with disk_errors(self._directory):
            for event in events:
                self._records.write(event.SerializeToString())
            self._file.flush()


class _TrackerGroup:
    """Several trackers as one, called in order."""

    def __init__(self, members: Sequence[Tracker]) -> None:
        self._members = members

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for member in self._members:
            member.log(step, values)

    def video(self, step: int, key: str, path: str | os.PathLike[str], caption: str) -> None:
        for member in self._members:
            member.video(step, key, path, caption)

    def close(self) -> None:
        # A member that fails must not keep the others from closing.
        with ExitStack() as stack:
            for member in self._members:
                stack.callback(member.close)


class TrackerWriter(KVWriter):
    """Lets stable-baselines3's logger feed a tracker: ``Logger(None, [TrackerWriter(tracker)])``.

    Numbers are logged under the logger's own step; everything else, and what is excluded from
    TensorBoard, is left out. The tracker stays open when the logger is closed.
    """

    def __init__(self, tracker: Tracker) -> None:
        """Take the tracker to feed."""
        self._tracker = tracker

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
            self._tracker.log(step, values)

    def close(self) -> None:
        """Leave the tracker open: its maker closes it."""
