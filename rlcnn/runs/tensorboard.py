"""TensorBoard: scalars, the configuration as hyperparameters, and text."""

from __future__ import annotations

import json
import os
import platform
import shlex
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams.summary_v2 import hparams_pb
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.summary.writer.record_writer import RecordWriter

from rlcnn.runs.files import disk_errors
from rlcnn.runs.tracker import Tracker


class TensorBoardTracker(Tracker):
    """Writes scalars as a TensorBoard event file. Films are not shown there.

    Written here and not by torch's ``SummaryWriter``, whose thread would meet a full disk out of
    reach of the caller and print its traceback.
    """

    def __init__(self, directory: Path, purge_step: int | None = None) -> None:
        """Open a new event file; ``purge_step`` as in :func:`rlcnn.runs.tracking.make_tracker`."""
        self._directory, self._first_step = directory, purge_step or 0
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

    def describe(self, options: Mapping[str, Any], command: list[str] | None) -> None:
        """Write the options, for the tabs HPARAMS and TEXT, and the command line."""
        summaries = [hparams_pb(dict(_flat(options)), start_time_secs=time.time())]
        text = {"configuration": json.dumps(options, indent=2, default=str)}
        if command:
            text["command"] = shlex.join(command)
        # Indented, as Markdown shows lines as they are.
        summaries += [
            text_pb(name, "\n".join(f"    {line}" for line in content.splitlines()))
            for name, content in text.items()
        ]
        for summary in summaries:
            self._write(Event(wall_time=time.time(), step=self._first_step, summary=summary))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Write all values as one event, at once: a killed run loses no row."""
        scalars = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._write(Event(wall_time=time.time(), step=step, summary=Summary(value=scalars)))

    def close(self) -> None:
        with disk_errors(self._directory):
            self._file.close()

    def _write(self, *events: Event) -> None:
        with disk_errors(self._directory):
            for event in events:
                self._records.write(event.SerializeToString())
            self._file.flush()


def _flat(options: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, bool | float | str]]:
    """Options as ``ppo.gamma``, with values that TensorBoard takes."""
    for name, value in options.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value if isinstance(value, bool | int | float) else str(value)
