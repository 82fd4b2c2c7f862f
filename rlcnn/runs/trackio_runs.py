"""trackio: the calls of Weights & Biases, and a dashboard on this machine without an account."""

from __future__ import annotations

import io
import os
import secrets
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from typing import Any

from rlcnn.runs.directory import RunDirectory
from rlcnn.runs.files import read_json, write_json_atomic
from rlcnn.runs.service import ServiceTracker
from rlcnn.runs.tracker import TRACKIO_NAME, RunCard, TrackMode, provenance_of

# Where `online` sends to; trackio reads them.
_REMOTES = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL")


class TrackioTracker(ServiceTracker):
    """Logs to trackio's database, of which ``trackio show`` is the dashboard.

    All attempts are one run there; steps that a resume repeats are there twice. Offline it records
    on this machine (``TRACKIO_DIR``); online, to the Space or server that ``TRACKIO_SPACE_ID`` or
    ``TRACKIO_SERVER_URL`` names.
    """

    service = "trackio"

    def __init__(self, run: RunDirectory, mode: TrackMode, card: RunCard, project: str) -> None:
        """Start trackio; see :func:`rlcnn.runs.tracking.make_tracker`.

        Raises:
            Exception: its own errors, when it cannot start.
        """
        import trackio

        remotes = {key: os.environ[key] for key in _REMOTES if os.environ.get(key)}
        if mode == "online" and not remotes:
            raise ValueError(f"{' or '.join(_REMOTES)} must name where to send to")
        # trackio knows runs by their names, of which others may be the same.
        path, name = run.path / TRACKIO_NAME, run.path.resolve().name
        with _quiet():
            if mode == "offline":
                for key in remotes:
                    del os.environ[key]
            try:
                if not path.exists():
                    taken = set()
                    # There is no such project before its first run.
                    with suppress(ValueError):
                        taken = {other.name for other in trackio.Api().runs(project)}
                    if name in taken:
                        name = f"{name}-{secrets.token_hex(2)}"
                    write_json_atomic(path, {"name": name})
                session = trackio.init(
                    project,
                    name=read_json(path)["name"],
                    group=card.group,
                    config={
                        **card.options,
                        "tags": list(card.tags),
                        "job_type": card.job_type,
                        "provenance": provenance_of(run),
                    },
                    resume="allow",
                    embed=False,
                )
            finally:
                os.environ.update(remotes)
        super().__init__(run, trackio, session)

    def _summarize(self, summary: Mapping[str, Any]) -> None:
        self.log(summary["steps"], {f"summary/{name}": value for name, value in summary.items()})

    def _finish(self) -> None:
        # By the module, which otherwise finishes the run again when the process ends, and says so.
        self._module.finish()

    @contextmanager
    def _first_error_warned(self) -> Iterator[None]:
        with super()._first_error_warned(), _quiet() as warned:
            yield
        for warning in warned:
            self._warn(str(warning.message))


@contextmanager
def _quiet() -> Iterator[list[warnings.WarningMessage]]:
    """Keeps what trackio prints off the screen; its failures, which are warnings, are collected."""
    with redirect_stdout(io.StringIO()), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        yield warned
