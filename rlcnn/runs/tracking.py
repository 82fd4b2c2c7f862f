"""TensorBoard, Weights & Biases and the run's own metrics file behind one small interface."""

from __future__ import annotations

import logging
import os
import platform
import secrets
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from numbers import Real
from pathlib import Path
from typing import Any, Literal, TypeVar

from stable_baselines3.common.logger import KVWriter

from envs.errors import UserError, nearest
from rlcnn.runs.directory import RunDirectory
from rlcnn.runs.files import disk_errors, read_json, write_json_atomic

try:
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter
except ImportError as error:
    # A training goes on without it.
    _tensorboard_missing: str | None = str(error)
else:
    _tensorboard_missing = None

TrackMode = Literal["disabled", "offline", "online"]
T = TypeVar("T")

_MODES = ("disabled", "offline", "online")
# What W&B takes in WANDB_MODE; "dryrun" and "run" are its older names.
_WANDB_MODES: dict[str, TrackMode] = {
    "disabled": "disabled",
    "offline": "offline",
    "online": "online",
    "dryrun": "offline",
    "run": "online",
}
_log = logging.getLogger(__name__)

# How long W&B may try to reach its server before training goes on without it.
_INIT_TIMEOUT_S = 30.0


class Tracker(ABC):
    """Where a run's figures and films go. ``step`` counts agent steps."""

    @abstractmethod
    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Record figures, named like ``train/loss``, that hold at ``step``."""

    @abstractmethod
    def video(self, step: int, key: str, path: str | os.PathLike[str], caption: str) -> None:
        """Record a film that lies at ``path`` (H.264 MP4), under a key like ``video/eval``."""

    @abstractmethod
    def close(self) -> None:
        """Write what is still held back and let go of files; calling it again does nothing."""


def make_tracker(
    run: RunDirectory,
    mode: TrackMode = "offline",
    *,
    project: str = "rlcnn",
    name: str | None = None,
    config: Mapping[str, Any] | None = None,
    purge_step: int | None = None,
) -> Tracker:
    """A tracker that feeds ``metrics.jsonl``, TensorBoard and, unless disabled, W&B.

    Weights & Biases that cannot start, for want of an account or a network, costs one line of
    warning and no training: ``online`` falls back to ``offline``, which needs neither. So does a
    missing TensorBoard.

    Args:
        run: A run held for writing.
        mode: Whether W&B is off, records into ``wandb/`` of the run directory, or also uploads.
        project: W&B project.
        name: W&B display name; by default the run directory's name.
        config: What W&B shows as the run's configuration; by default the run's own. Its "labels",
            a "group" and "tags", put the run beside others there.
        purge_step: On a resume, the first step to be done again: what TensorBoard holds from
            there on is hidden. ``metrics.jsonl`` is cut by :meth:`RunDirectory.truncate_metrics`.

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

    def start(attempt: TrackMode) -> WandbTracker:
        return WandbTracker(
            run,
            attempt,
            project=project,
            name=name or run.path.resolve().name,
            config=run.config if config is None else config,
        )

    if (tracker := start_or_warn(mode, start)) is not None:
        trackers.append(tracker)
    return _TrackerGroup(trackers)


def mode_from_environment(default: TrackMode) -> TrackMode:
    """The tracking mode that W&B's own environment variables ask for, or else ``default``.

    A ``WANDB_DISABLED`` that is not false disables it; ``WANDB_MODE`` names a mode.
    """
    disabled = os.environ.get("WANDB_DISABLED", "").strip().lower()
    if disabled not in ("", "0", "false", "no", "off"):
        return "disabled"
    named = os.environ.get("WANDB_MODE", "").strip().lower()
    if named and named not in _WANDB_MODES:
        _log.warning(
            "WANDB_MODE=%s is not used: expected one of %s", named, ", ".join(_WANDB_MODES)
        )
    return _WANDB_MODES.get(named, default)


def start_or_warn(mode: TrackMode, start: Callable[[TrackMode], T]) -> T | None:
    """Starts W&B, offline where online cannot be had; what it cannot do is one line of warning.

    Args:
        mode: what is wanted; nothing is started with "disabled".
        start: starts it in the mode that it is given, or raises.

    Returns:
        What ``start`` returned, or None.
    """
    # Also where online is asked for: what could not be sent is then at least recorded.
    attempts: dict[TrackMode, None] = {} if mode == "disabled" else {mode: None, "offline": None}
    for attempt in attempts:
        try:
            return start(attempt)
        except Exception as error:
            instead = "" if attempt == "offline" else "; recording offline, for `wandb sync` later"
            reason = first_line(error).rstrip(".")
            _log.warning("Weights & Biases cannot start %s: %s%s", attempt, reason, instead)
    return None


def start_wandb(
    directory: Path,
    mode: TrackMode,
    *,
    project: str,
    name: str,
    identity: str,
    config: Mapping[str, Any],
    labels: Mapping[str, Any],
    job_type: str | None = None,
) -> Any:
    """Starts a W&B run that records into ``wandb/`` of a directory.

    Args:
        directory: where to.
        mode: "offline" or "online".
        project: W&B project.
        name: display name.
        identity: the run's id there.
        config: what is shown as its configuration.
        labels: a "group" and "tags", or neither.
        job_type: what kind of run it is, within its group.

    Returns:
        The run, as ``wandb.init`` gives it.

    Raises:
        Exception: W&B's own errors, when it cannot start.
    """
    import wandb

    # It takes our package `agents` for a library of language models, and advertises Weave.
    os.environ.setdefault("WANDB_DISABLE_WEAVE", "true")
    # It reads this first, and would not start where it finds a word that it does not know.
    if os.environ.get("WANDB_MODE") not in _WANDB_MODES:
        os.environ.pop("WANDB_MODE", None)
    with _not_interactive():
        try:
            return wandb.init(
                mode=mode,
                project=project,
                name=name,
                id=identity,
                config=dict(config),
                group=labels.get("group"),
                tags=labels.get("tags"),
                job_type=job_type,
                dir=str(directory),
                resume="allow",
                reinit="create_new",
                settings=wandb.Settings(silent=True, console="off", init_timeout=_INIT_TIMEOUT_S),
            )
        except Exception:
            # W&B counts a run that did not start as active, and would refuse its id offline.
            if wandb.run is None:
                wandb.teardown()
            raise


def wandb_identity(directory: Path) -> dict[str, Any]:
    """A W&B id and the time it was made at: kept in ``wandb.json`` from the first attempt on."""
    path = directory / "wandb.json"
    if not path.exists():
        write_json_atomic(path, {"id": secrets.token_hex(4), "began": time.time()})
    return read_json(path)


class MetricsTracker(Tracker):
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
        """Nothing is held back."""


class TensorBoardTracker(Tracker):
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


class WandbTracker(Tracker):
    """Logs to Weights & Biases; every attempt of a run has the same W&B id.

    Each attempt leaves one directory in ``wandb/`` of the run directory. What it logs is plotted
    over the key ``step``. A failure after the start is warned of once and stops nothing.
    """

    def __init__(
        self,
        run: RunDirectory,
        mode: TrackMode,
        *,
        project: str,
        name: str,
        config: Mapping[str, Any],
    ) -> None:
        """Start W&B.

        Raises:
            Exception: W&B's own errors, when it cannot start.
        """
        # Slow to import, and not needed with tracking disabled.
        import wandb

        self._wandb = wandb
        identity = wandb_identity(run.path)
        self._began = float(identity["began"])
        self._run = start_wandb(
            run.path,
            mode,
            project=project,
            name=name,
            identity=identity["id"],
            config={**config, "attempt": run.attempts},
            labels=config.get("labels") or {},
        )
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")
        self._row = 0
        self._warned = False

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Log one row."""
        self._send(step, values)

    def video(self, step: int, key: str, path: str | os.PathLike[str], caption: str) -> None:
        """Log the MP4 file as it is; W&B keeps a copy of its own."""
        with self._errors_warned_of_once():
            film = self._wandb.Video(os.fspath(path), caption=caption, format="mp4")
            self._send(step, {key: film})

    def close(self) -> None:
        """Finish the W&B run."""
        with self._errors_warned_of_once():
            self._run.finish()

    def _send(self, step: int, values: Mapping[str, Any]) -> None:
        # W&B wants a row number that grows, also over attempts whose last rows are done again and
        # whose number of rows is not known after a kill. The clock, in milliseconds, grows.
        self._row = max(self._row + 1, int(1000 * (time.time() - self._began)))
        with self._errors_warned_of_once():
            self._run.log({"step": step, **values}, step=self._row, commit=True)

    @contextmanager
    def _errors_warned_of_once(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if not self._warned:
                _log.warning("Weights & Biases misses something: %s", first_line(error))
            self._warned = True


class _TrackerGroup(Tracker):
    """Several trackers as one, told in order."""

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
        """Leave the tracker open: who made it closes it."""


@contextmanager
def _not_interactive() -> Iterator[None]:
    """Keep W&B from asking for a key on a terminal that nobody may be watching."""
    terminal = sys.stdin
    with open(os.devnull) as nothing:
        sys.stdin = nothing
        try:
            yield
        finally:
            sys.stdin = terminal


def first_line(error: Exception) -> str:
    """The first line of what an error says, or its kind where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
