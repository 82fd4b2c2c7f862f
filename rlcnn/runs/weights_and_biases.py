"""Weights & Biases: a failure there costs one line of warning and never stops a run."""

from __future__ import annotations

import logging
import os
import secrets
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rlcnn.runs.directory import RunDirectory
from rlcnn.runs.files import read_json, write_json_atomic
from rlcnn.runs.service import ServiceTracker
from rlcnn.runs.tracker import RunCard, TrackMode, provenance_of

# The values that W&B accepts in WANDB_MODE; "dryrun" and "run" are the older names.
_WANDB_MODES: dict[str, TrackMode] = {
    "disabled": "disabled",
    "offline": "offline",
    "online": "online",
    "dryrun": "offline",
    "run": "online",
}
_log = logging.getLogger(__name__)

# After so many seconds without an answer from W&B's server, training goes on without it.
_INIT_TIMEOUT_S = 30.0


def mode_from_environment(default: TrackMode) -> TrackMode:
    """The tracking mode that W&B's own environment variables ask for, or else ``default``.

    A ``WANDB_DISABLED`` that is not false disables tracking; ``WANDB_MODE`` names a mode.
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


def start_wandb(
    directory: Path,
    mode: TrackMode,
    card: RunCard,
    *,
    project: str,
    name: str,
    identity: str,
    provenance: Mapping[str, Any] | None = None,
) -> Any:
    """Starts a W&B run that records into ``wandb/`` of a directory; the result of ``wandb.init``.

    The run's id there is ``identity``. The configuration is the card's options, and ``provenance``
    under that key; W&B is given the "git_commit" and the "git_remote" in it, where they are known,
    and looks in the working directory otherwise.

    Raises:
        Exception: W&B's own errors, when it cannot start.
    """
    import wandb

    # W&B takes our package `agents` for a library of language models, and advertises Weave.
    os.environ.setdefault("WANDB_DISABLE_WEAVE", "true")
    # W&B reads this variable first, and does not start where it holds an unknown word.
    if os.environ.get("WANDB_MODE") not in _WANDB_MODES:
        os.environ.pop("WANDB_MODE", None)
    known = provenance or {}
    git = {
        setting: known[fact]
        for setting, fact in (("git_commit", "git_commit"), ("git_remote_url", "git_remote"))
        if known.get(fact)
    }
    settings = wandb.Settings(silent=True, console="off", init_timeout=_INIT_TIMEOUT_S, **git)
    with _not_interactive():
        try:
            return wandb.init(
                mode=mode,
                project=project,
                name=name,
                id=identity,
                config={**card.options, **({"provenance": dict(known)} if known else {})},
                group=card.group,
                tags=card.tags,
                job_type=card.job_type,
                dir=str(directory),
                resume="allow",
                reinit="create_new",
                settings=settings,
            )
        except Exception:
            # W&B counts a run that did not start as active, and would refuse its id offline.
            if wandb.run is None:
                wandb.teardown()
            raise


def wandb_identity(directory: Path) -> dict[str, Any]:
    """A run's W&B "id" and the time when it "began", kept in ``wandb.json`` from the first call."""
    path = directory / "wandb.json"
    if not path.exists():
        write_json_atomic(path, {"id": secrets.token_hex(4), "began": time.time()})
    return read_json(path)


class WandbTracker(ServiceTracker):
    """Logs to Weights & Biases; every attempt of a run has the same W&B id.

    Each attempt leaves one directory in ``wandb/`` of the run directory. Values are plotted over
    the key ``step``.
    """

    service = "Weights & Biases"

    def __init__(self, run: RunDirectory, mode: TrackMode, card: RunCard, project: str) -> None:
        """Start W&B; see :func:`rlcnn.runs.tracking.make_tracker`.

        Raises:
            Exception: W&B's own errors, when it cannot start.
        """
        # Slow to import, and not needed with tracking disabled.
        import wandb

        identity = wandb_identity(run.path)
        session = start_wandb(
            run.path,
            mode,
            card,
            project=project,
            name=run.path.resolve().name,
            identity=identity["id"],
            provenance=provenance_of(run),
        )
        super().__init__(run, wandb, session)
        self._began, self._row = float(identity["began"]), 0
        session.define_metric("step")
        session.define_metric("*", step_metric="step")

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        # W&B needs a row number that grows, also over attempts that repeat the last rows of the
        # one before, whose count is unknown after a kill. The clock, in milliseconds, grows.
        self._row = max(self._row + 1, int(1000 * (time.time() - self._began)))
        with self._first_error_warned():
            self._session.log({"step": step, **values}, step=self._row, commit=True)

    def _summarize(self, summary: Mapping[str, Any]) -> None:
        self._session.summary.update(dict(summary))


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
