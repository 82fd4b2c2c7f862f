"""A run's ``metrics.jsonl``: one JSON object a line, each with an integer "step"."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from envs.errors import UserError
from rlcnn.runs.files import disk_errors, plain, write_atomic


def append_row(path: Path, step: int, values: Mapping[str, Any]) -> None:
    """Append one row whole, or nothing; see :meth:`RunDirectory.append_metrics`."""
    row = json.dumps({"step": int(step), **plain(values)}, allow_nan=False).encode() + b"\n"
    # Unbuffered, so that a row that did not fit is not tried again when the file is closed.
    with disk_errors(path), open(path, "ab", buffering=0) as file:
        start = file.seek(0, os.SEEK_END)
        try:
            rest = memoryview(row)
            while rest:
                rest = rest[file.write(rest) :]
        except OSError:
            file.truncate(start)
            raise


def read_rows(path: Path) -> list[dict[str, Any]]:
    """All whole rows; see :meth:`RunDirectory.metrics`."""
    try:
        lines = path.read_bytes().splitlines(keepends=True)
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
            raise UserError(f"{path} is corrupted at line {number}") from error
        rows.append(row)
    return rows


def drop_rows_beyond(path: Path, step: int) -> None:
    """Drop rows beyond ``step`` and a half-written last line."""
    rows = (json.dumps(row) + "\n" for row in read_rows(path) if row["step"] <= step)
    write_atomic(path, "".join(rows))


def drop_half_row(path: Path) -> None:
    """Drop a half-written last line."""
    if path.exists():
        os.truncate(path, path.read_bytes().rfind(b"\n") + 1)
