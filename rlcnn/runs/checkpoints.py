"""A run's ``checkpoints/``: each is there whole or not at all, which its manifest proves.

A name that starts with a dot is no checkpoint: its directory is being written or removed, or a
process was killed while it did so.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from rlcnn.runs import manifest
from rlcnn.runs.files import disk_errors, fsync

_OLD = ".old"


class BrokenCheckpoint(NamedTuple):
    """A checkpoint that cannot be used, and what is wrong with it."""

    path: Path
    reason: str


def numbered(directory: Path) -> list[Path]:
    """Everything named as a checkpoint, whole or not, oldest first."""
    if not directory.is_dir():
        return []
    found = [path for path in directory.iterdir() if path.name.isdecimal()]
    return sorted(found, key=lambda path: int(path.name))


def whole(directory: Path) -> list[Path]:
    """Checkpoints whose files have the sizes in their manifests, oldest first."""
    return [path for path in numbered(directory) if manifest.flaw(path, ()) is None]


def latest_whole(
    directory: Path, files: Collection[str] | None = None
) -> tuple[Path | None, list[BrokenCheckpoint]]:
    """The newest checkpoint without a :func:`manifest.flaw`, and the newer ones, which have one."""
    broken: list[BrokenCheckpoint] = []
    for path in reversed(numbered(directory)):
        reason = manifest.flaw(path, files)
        if reason is None:
            return path, broken
        broken.append(BrokenCheckpoint(path, reason))
    return None, broken


@contextmanager
def new_checkpoint(directory: Path, step: int, flushed: Path) -> Iterator[Path]:
    """Write a checkpoint once ``flushed`` is on the disk; see :class:`RunDirectory`."""
    final = directory / f"{step:012d}"
    with disk_errors(final):
        scratch = final.with_name(f".{final.name}.{secrets.token_hex(4)}.tmp")
        scratch.mkdir()
        try:
            yield scratch
            if flushed.exists():
                fsync(flushed)
            manifest.seal(scratch)
            _put_in_place(scratch, final)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise


def _put_in_place(scratch: Path, final: Path) -> None:
    replaced = final.with_name(f".{final.name}{_OLD}")
    shutil.rmtree(replaced, ignore_errors=True)
    if final.exists():
        final.rename(replaced)
    scratch.rename(final)
    fsync(final.parent)
    shutil.rmtree(replaced, ignore_errors=True)
    # A newer one with the right sizes but corrupted contents would count as the newest, and be
    # kept when the whole ones are pruned.
    for path in numbered(final.parent):
        if int(path.name) > int(final.name):
            _remove(path)


def prune(directory: Path, keep: int) -> None:
    """Remove all but the newest ``keep`` whole checkpoints (at least 1), and broken ones."""
    if keep < 1:
        raise ValueError(f"at least 1 checkpoint must be kept, not {keep}")
    kept = whole(directory)[-keep:]
    for path in numbered(directory):
        if path not in kept:
            _remove(path)


def drop_from_older(directory: Path, filename: str) -> None:
    """Remove a file from all whole checkpoints but the newest, and from their manifests."""
    for path in whole(directory)[:-1]:
        with disk_errors(path):
            manifest.drop(path, filename)


def recover(directory: Path) -> None:
    """Clear away what a killed process was writing; bring back what it was about to replace."""
    for path in directory.glob(".*"):
        final = path.with_name(path.name.removeprefix(".").removesuffix(_OLD))
        if path.name.endswith(_OLD) and not final.exists():
            path.rename(final)
        else:
            shutil.rmtree(path, ignore_errors=True)


def _remove(checkpoint: Path) -> None:
    # Renamed first, so that a reader never meets a half-removed checkpoint.
    with disk_errors(checkpoint):
        hidden = checkpoint.with_name(f".{checkpoint.name}.{secrets.token_hex(4)}.removed")
        checkpoint.rename(hidden)
        shutil.rmtree(hidden, ignore_errors=True)
