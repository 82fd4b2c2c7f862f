"""A run's directory: configuration, metrics, checkpoints and summary; every write atomic.

Layout::

    config.json        everything needed to repeat the run
    metrics.jsonl      one JSON object a line, each with an integer "step"
    summary.json       written when the run is finished
    attempts.json      when, where and how the run was started or resumed
    checkpoints/       {step:012d}/, each with manifest.json: size and SHA-256 of every file
    videos/  tb/       filmed games; TensorBoard event files
    .lock              held by the one process that may write
"""

from __future__ import annotations

import itertools
import json
import os
import platform
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Self

from rich.console import Console

from envs.errors import UserError, in_shell
from rlcnn.runs import checkpoints, manifest
from rlcnn.runs.checkpoints import BrokenCheckpoint
from rlcnn.runs.files import disk_errors, plain, read_json, write_atomic, write_json_atomic
from rlcnn.runs.lock import LOCK, RunTakenError, acquire
from rlcnn.runs.progress import print_facts


class RunDirectory:
    """One run on disk. Make it with :meth:`create` or :meth:`open`.

    At most one process holds a run for writing; any number may read it meanwhile. Use it as a
    context manager, or call :meth:`close`, to give the writing lock back; the operating system
    gives it back when the process dies, however it dies.

    Every method that writes raises UserError where the disk is full or cannot be written.

    Attributes:
        path: the directory; ``metrics_path``, ``checkpoints_dir``, ``videos_dir`` and ``tb_dir``
            are the parts of it that the layout above names.
    """

    def __init__(self, path: Path, config: dict[str, Any], lock: IO[bytes] | None) -> None:
        """Private: ``lock`` is the locked file, or None when only reading."""
        self.path = path
        self.metrics_path = path / "metrics.jsonl"
        self.checkpoints_dir, self.videos_dir = path / "checkpoints", path / "videos"
        self.tb_dir = path / "tb"
        self._config = config
        self._lock = lock

    @classmethod
    def create(cls, path: str | os.PathLike[str], config: Mapping[str, Any]) -> Self:
        """Start a new run, held for writing.

        Args:
            path: A directory that is empty or does not exist yet; parents are made.
            config: Everything needed to repeat the run, as JSON values.

        Raises:
            RunTakenError: The directory is not empty, is a file, or another process uses it.
        """
        path = Path(path)
        require_vacant(path)
        with disk_errors(path):
            path.mkdir(parents=True, exist_ok=True)
            lock = acquire(path)
        run = cls(path, plain(config), lock)
        try:
            # Another process may have begun here between the check and the lock.
            require_vacant(path)
            write_json_atomic(path / "config.json", run._config)
            run._make_directories()
        except BaseException:
            run.close()
            raise
        return run

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, write: bool = False) -> Self:
        """Open a run that exists. Nothing in it is touched.

        Args:
            path: The run's directory.
            write: Hold the run for writing, so that nobody else changes it. Without it a run can
                be read while another process trains it. What a killed process left half-written
                stays until :meth:`recover`.

        Raises:
            UserError: The directory is missing, not a directory, empty, no run, its config.json is
                truncated or corrupted, or (``write``) another process holds it or the record of
                attempts is corrupted.
        """
        path = Path(path)
        try:
            _require_run(path)
        except PermissionError as error:
            raise UserError(f"run directory {path} cannot be read: permission denied") from error
        config = read_json(path / "config.json")
        if not write:
            return cls(path, config, lock=None)
        with disk_errors(path):
            lock = acquire(path)
        try:
            # Again: the last holder of the lock may have changed it.
            run = cls(path, read_json(path / "config.json"), lock)
            # Attempts will be appended: an unreadable record is refused before anything changes.
            run._attempts()
        except BaseException:
            lock.close()
            raise
        return run

    def close(self) -> None:
        """Give the writing lock back; reading goes on working."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def config(self) -> dict[str, Any]:
        """The configuration as stored in ``config.json``."""
        return self._config

    @property
    def attempts(self) -> int:
        """How often the run was started or resumed: 1 during the first attempt."""
        return len(self._attempts())

    @property
    def last_attempt(self) -> dict[str, Any]:
        """What :meth:`begin_attempt` noted last; empty before the first attempt."""
        attempts = self._attempts()
        return attempts[-1] if attempts else {}

    def begin_attempt(self, metadata: Mapping[str, Any] | None = None) -> None:
        """Add an attempt to ``attempts.json``: time, host, process, and ``metadata`` (JSON)."""
        self._require_lock()
        attempt = {
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "host": platform.node(),
            "pid": os.getpid(),
            **plain(metadata or {}),
        }
        write_json_atomic(self.path / "attempts.json", {"attempts": [*self._attempts(), attempt]})

    def recover(self) -> None:
        """Clear away what a killed process was writing; bring back what it was about to replace."""
        self._require_lock()
        self._make_directories()
        with disk_errors(self.path):
            for path in (*self.path.glob(".*.tmp"), *self.videos_dir.glob(".*.part")):
                path.unlink()
            checkpoints.recover(self.checkpoints_dir)
            if self.metrics_path.exists():
                rows = self.metrics_path.read_bytes()
                os.truncate(self.metrics_path, rows.rfind(b"\n") + 1)

    def update_config(self, changes: Mapping[str, Any]) -> None:
        """Replace top-level keys of the configuration, in memory and in ``config.json``.

        When it raises, nothing has changed.
        """
        self._require_lock()
        config = {**self._config, **plain(changes)}
        write_json_atomic(self.path / "config.json", config)
        self._config = config

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write ``summary.json``, the mark of a finished run; NaN and infinities become null."""
        self._require_lock()
        write_json_atomic(self.path / "summary.json", summary)

    def summary(self) -> dict[str, Any] | None:
        """The contents of ``summary.json``, or None while the run is not finished.

        Raises:
            UserError: The file is truncated or corrupted.
        """
        path = self.path / "summary.json"
        return read_json(path) if path.exists() else None

    # -- metrics ---------------------------------------------------------------------------------

    def append_metrics(self, step: int, values: Mapping[str, Any]) -> None:
        """Append one row ``{"step": step, **values}``, whole or not at all.

        Values are numbers, strings or None. NaN and the infinities, which JSON does not have, are
        written as null and read back as None.
        """
        self._require_lock()
        row = json.dumps({"step": int(step), **plain(values)}, allow_nan=False).encode() + b"\n"
        # Unbuffered, so that a row that did not fit is not tried again when the file is closed.
        with disk_errors(self.metrics_path), open(self.metrics_path, "ab", buffering=0) as file:
            start = file.seek(0, os.SEEK_END)
            try:
                rest = memoryview(row)
                while rest:
                    rest = rest[file.write(rest) :]
            except OSError:
                file.truncate(start)
                raise

    def metrics(self) -> list[dict[str, Any]]:
        """All whole rows, in the order written; a last line still being written is left out.

        Raises:
            UserError: A row is corrupted; the message names its line.
        """
        try:
            lines = self.metrics_path.read_bytes().splitlines(keepends=True)
        except FileNotFoundError:
            return []
        rows = []
        for number, line in enumerate(lines, start=1):
            if not line.endswith(b"\n"):
                break
            try:
                row = json.loads(line)
                row["step"] = int(row["step"])
            except (ValueError, TypeError, KeyError) as error:
                raise UserError(f"{self.metrics_path} is corrupted at line {number}") from error
            rows.append(row)
        return rows

    def truncate_metrics(self, step: int) -> None:
        """Drop rows beyond ``step`` and a half-written last line, for a resume from that step.

        Raises:
            UserError: A row is corrupted, or the disk is full; the file is unchanged then.
        """
        self._require_lock()
        rows = (json.dumps(row) + "\n" for row in self.metrics() if row["step"] <= step)
        write_atomic(self.metrics_path, "".join(rows))

    # -- checkpoints -----------------------------------------------------------------------------

    @contextmanager
    def new_checkpoint(self, step: int) -> Iterator[Path]:
        """Write a checkpoint that appears whole, or not at all.

        Yields a hidden directory to write files into. When the block ends well, every file is
        flushed to the disk, the manifest is written last, and the directory is renamed to
        ``checkpoints/{step:012d}``, in place of one that was there. Checkpoints beyond ``step``
        are removed: a resume passed them over as broken. When the block raises, the hidden
        directory is removed and all other checkpoints are as before.
        """
        self._require_lock()
        # A resume expects every row up to the checkpoint, also after a power cut.
        with checkpoints.new_checkpoint(self.checkpoints_dir, step, self.metrics_path) as scratch:
            yield scratch

    def checkpoints(self) -> list[Path]:
        """Whole checkpoints, oldest first, by the sizes of files; :meth:`verify` reads contents."""
        return checkpoints.whole(self.checkpoints_dir)

    def verify(self, checkpoint: Path, files: Collection[str] | None = None) -> str | None:
        """The flaw of a checkpoint in a few words, or None if it is whole.

        Args:
            checkpoint: Its directory.
            files: Names of those that will be read, whose SHA-256 is compared; by default all. Of
                others only the size is compared, since some are large.
        """
        return manifest.flaw(checkpoint, files)

    def latest_whole(
        self, files: Collection[str] | None = None
    ) -> tuple[Path | None, list[BrokenCheckpoint]]:
        """The newest checkpoint that passes :meth:`verify`, and the newer ones that do not."""
        return checkpoints.latest_whole(self.checkpoints_dir, files)

    def prune(self, keep: int) -> None:
        """Remove all but the newest ``keep`` whole checkpoints (at least 1), and broken ones."""
        self._require_lock()
        checkpoints.prune(self.checkpoints_dir, keep)

    def drop_from_older(self, filename: str) -> None:
        """Remove a file from all whole checkpoints but the newest, and from their manifests.

        For large files of which only the last state is of use, such as a replay snapshot.
        """
        self._require_lock()
        checkpoints.drop_from_older(self.checkpoints_dir, filename)

    def _attempts(self) -> list[dict[str, Any]]:
        path = self.path / "attempts.json"
        return list(read_json(path).get("attempts", [])) if path.exists() else []

    def _require_lock(self) -> None:
        if self._lock is None:
            raise RuntimeError(f"run {self.path} is not open for writing")

    def _make_directories(self) -> None:
        with disk_errors(self.path):
            for directory in (self.checkpoints_dir, self.videos_dir, self.tb_dir):
                directory.mkdir(exist_ok=True)


def require_vacant(path: Path) -> None:
    """Refuses a directory that no run can begin in.

    Raises:
        RunTakenError: it is a file, or not empty.
    """
    with disk_errors(path):
        if path.exists() and not path.is_dir():
            raise RunTakenError(f"run directory {path} is a file")
        if path.exists() and _entries(path):
            raise RunTakenError(
                f"run directory {path} exists and is not empty: choose another by --run-dir,"
                f" or go on with it by --resume {in_shell(path)}"
            )


@contextmanager
def claimed_directory(run_dir: Path | None, default: Path, console: Console) -> Iterator[Path]:
    """An empty directory for a new run, made and printed before anything that takes long.

    It is ``run_dir`` or, where that is None, the first of ``default``, ``default-2``, ``default-3``
    and so on that does not exist: runs that begin at the same time get different ones. It and the
    parents made for it are removed if they are still empty when the block fails.

    Raises:
        RunTakenError: as :func:`require_vacant`.
        UserError: the disk cannot be written.
    """
    made = [parent for parent in (run_dir or default).parents if not parent.exists()]
    if run_dir is None:
        path = _make_numbered(default)
        made = [path, *made]
    else:
        path = run_dir
        require_vacant(path)
        with disk_errors(path):
            if not path.exists():
                path.mkdir(parents=True)
                made = [path, *made]
    print_facts(console, [("run", str(path))])
    try:
        yield path
    except BaseException:
        with suppress(OSError):
            for directory in made:
                directory.rmdir()
        raise


def _make_numbered(default: Path) -> Path:
    path = default
    for number in itertools.count(2):
        with disk_errors(path), suppress(FileExistsError):
            path.mkdir(parents=True)
            break
        path = default.with_name(f"{default.name}-{number}")
    return path


def _require_run(path: Path) -> None:
    if not path.exists():
        raise UserError(f"run directory {path} does not exist")
    if not path.is_dir():
        raise UserError(f"run directory {path} is not a directory")
    if not (path / "config.json").exists():
        state = "holds no config.json, so it is not a run" if _entries(path) else "is empty"
        raise UserError(f"run directory {path} {state}")


def _entries(path: Path) -> list[str]:
    return [name for name in os.listdir(path) if name != LOCK]
