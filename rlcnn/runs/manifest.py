"""Checks whether a directory is whole, by the sizes and SHA-256 in its manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

from envs.errors import UserError
from rlcnn.runs.files import fsync, read_json, write_json_atomic

NAME = "manifest.json"


def seal(directory: Path) -> None:
    """Flush every file in a directory to the disk, then write the manifest that names them all.

    Raises:
        UserError: The disk is full.
    """
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    _write(directory, {path.relative_to(directory).as_posix(): _facts(path) for path in files})
    fsync(directory)


def flaw(directory: Path, files: Collection[str] | None = None) -> str | None:
    """The flaw of a sealed directory, in a few words, or None if it is whole.

    Args:
        directory: A directory that :func:`seal` was given.
        files: Names of those whose SHA-256 is compared, which reads them whole; by default all. Of
            the others only the size is compared.
    """
    try:
        for name, facts in _read(directory).items():
            path = directory / name
            if path.stat().st_size != facts["size"]:
                return f"{name} has {path.stat().st_size} bytes instead of {facts['size']}"
            if (files is None or name in files) and _sha256(path) != facts["sha256"]:
                return f"the contents of {name} are corrupted"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (KeyError, TypeError):
        return f"{NAME} is corrupted"
    except (UserError, OSError) as error:
        return str(error)
    return None


def drop(directory: Path, name: str) -> None:
    """Remove one file from a sealed directory, which stays whole; without that file do nothing."""
    if not (directory / name).exists():
        return
    # The manifest first: a file it does not name does no harm, a named one that is missing would.
    facts = _read(directory)
    facts.pop(name, None)
    _write(directory, facts)
    (directory / name).unlink()


def _facts(path: Path) -> dict[str, Any]:
    fsync(path)
    return {"size": path.stat().st_size, "sha256": _sha256(path)}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write(directory: Path, facts: dict[str, Any]) -> None:
    write_json_atomic(directory / NAME, {"files": facts})


def _read(directory: Path) -> dict[str, Any]:
    if not (directory / NAME).exists():
        raise UserError(f"{NAME} is missing")
    facts = read_json(directory / NAME).get("files")
    if not isinstance(facts, dict):
        raise UserError(f"{NAME} is corrupted: it lists no files")
    return facts
