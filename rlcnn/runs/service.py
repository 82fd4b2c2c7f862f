"""A tracker with the calls of Weights & Biases: its failures never stop a run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from envs.errors import first_line
from rlcnn.runs.directory import RunDirectory
from rlcnn.runs.tracker import Tracker, TrackMode, summary_of

T = TypeVar("T")
_log = logging.getLogger(__name__)


class ServiceTracker(Tracker):
    """Records with a package whose classes and methods are named as those of ``wandb``.

    The first failure after the start is a warning; no failure stops the run. ``session`` is what
    the ``init`` of ``module`` returned.
    """

    service: ClassVar[str]
    """Its name in messages."""

    def __init__(self, run: RunDirectory, module: Any, session: Any) -> None:
        self._directory, self._module, self._session = run, module, session
        self._warned = False

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        with self._first_error_warned():
            self._session.log(dict(values), step=step)

    def video(self, step: int, key: str, path: Path, caption: str) -> None:
        """Log the MP4 file as it is; the service keeps a copy of its own."""
        with self._first_error_warned():
            self.log(step, {key: self._module.Video(str(path), caption=caption, format="mp4")})

    def images(self, step: int, paths: Mapping[str, Path]) -> None:
        with self._first_error_warned():
            self.log(step, {key: self._module.Image(str(path)) for key, path in paths.items()})

    def model(self, files: Sequence[Path], metadata: Mapping[str, Any]) -> None:
        """Log an artifact of type "model", a new version where the run has logged one before."""
        with self._first_error_warned():
            name = f"model-{self._session.id}"
            artifact = self._module.Artifact(name, type="model", metadata=dict(metadata))
            for file in files:
                artifact.add_file(str(file), name=file.name)
            self._session.log_artifact(artifact)

    def close(self) -> None:
        """Write the summary and finish the run there."""
        with self._first_error_warned():
            self._summarize(summary_of(self._directory))
        with self._first_error_warned():
            self._finish()

    def _finish(self) -> None:
        self._session.finish()

    def _summarize(self, summary: Mapping[str, Any]) -> None:
        """Records figures of the whole run, where the service has a place for them."""

    @contextmanager
    def _first_error_warned(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._warn(first_line(error))

    def _warn(self, reason: str) -> None:
        if not self._warned:
            _log.warning("%s misses something: %s", self.service, reason)
        self._warned = True


def start_or_warn(
    mode: TrackMode, start: Callable[[TrackMode], T], service: str = "Weights & Biases"
) -> T | None:
    """The result of ``start``, which starts a service in a mode: in ``mode``, or else offline.

    None where ``mode`` is "disabled" or the service cannot start; a failure is one line of warning.
    """
    # Offline at least records what could not be sent.
    attempts: dict[TrackMode, None] = {} if mode == "disabled" else {mode: None, "offline": None}
    for attempt in attempts:
        try:
            return start(attempt)
        except Exception as error:
            reason = first_line(error).rstrip(".")
            instead = ""
            if attempt != "offline":
                instead = "; recording offline, for `wandb sync` later"
                if reason.startswith("No API key configured"):
                    reason = "it has no login on this machine"
                    instead = "; recording offline: `wandb login` logs in, `wandb sync` uploads"
            _log.warning("%s cannot start %s: %s%s", service, attempt, reason, instead)
    return None
