"""Image files with labels from a CSV file."""

from __future__ import annotations

import codecs
import csv
import io
import os
import re
from pathlib import Path

import torch

from envs.errors import UserError, nearest
from rlcnn.data.images import ImageFiles, Task

FILE, INDEX = "file", "class_index"

# Spreadsheets write semicolons in countries with a decimal comma.
_DELIMITERS = ",;\t|"

# Lines of spreadsheets before the header: empty ones, and one that names the separator.
_BEFORE_HEADER = re.compile(r"\s*|sep=.\s*", re.IGNORECASE)

# Messages cut longer names.
_LONGEST = 100


def load_labelled_files(
    labels: Path, directory: Path, task: Task, *, channels: int = 3
) -> ImageFiles:
    """Reads file names and class indices of a task from a CSV.

    It has a header and the columns ``file`` (a path below ``directory``) and ``class_index``; other
    columns are ignored. Commas, semicolons, tabs or vertical bars separate the columns. The
    encoding is UTF-8 or one of spreadsheets. If the CSV does not exist, it is searched in
    ``directory``. Images are decoded to RGB with 3 channels, to grey with 1.

    Raises:
        UserError: the CSV, an image or a column is missing, the file is not a CSV or has no rows,
            or an index is not a class; the message names the line.
    """
    if not directory.is_dir():
        raise UserError(f'image folder "{directory}" does not exist')
    if not labels.is_file() and (directory / labels).is_file():
        labels = directory / labels
    paths: list[Path] = []
    indices: list[int] = []
    for line, row in _rows(labels):
        indices.append(_index(row[INDEX], task, f'"{labels}", line {line}'))
        path = directory / (row[FILE] or "")
        # Path.is_file raises an error for a name that is too long for a file.
        if not os.path.isfile(path):
            known = [other.name for other in directory.iterdir()]
            raise UserError(
                f'"{labels}", line {line}: there is no file "{_short(row[FILE])}" in "{directory}".'
                f"{nearest(row[FILE] or '', known)}"
            )
        paths.append(path)
    return ImageFiles(paths, torch.tensor(indices), [task], channels=channels)


def _short(name: str | None) -> str:
    name = name or ""
    return name if len(name) <= _LONGEST else name[:_LONGEST] + "..."


def _rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Rows with their line numbers."""
    lines = _text(path).splitlines(keepends=True)
    start = next((n for n, line in enumerate(lines) if not _BEFORE_HEADER.fullmatch(line)), 0)
    text = "".join(lines[start:])
    try:
        reader = csv.DictReader(
            io.StringIO(text, newline=""), delimiter=_delimiter(text), skipinitialspace=True
        )
        columns = [name.strip() for name in reader.fieldnames or ()]
        for name in (FILE, INDEX):
            if name not in columns:
                raise UserError(
                    f'"{path}" has no column "{name}": its columns are'
                    f" {_short(', '.join(columns)) or 'none'}.{nearest(name, columns)}"
                )
        reader.fieldnames = columns
        rows = [(start + reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise UserError(f'"{path}" is not a CSV file') from error
    if not rows:
        raise UserError(f'"{path}" names no image')
    return rows


def _text(path: Path) -> str:
    """The text of a CSV in UTF-8 or an encoding that spreadsheets write."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f'cannot read "{path}": {error.strerror}') from error
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    for encoding in ("utf-16",) if wide else ("utf-8-sig", "cp1252", "latin-1"):
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text
    raise UserError(f'"{path}" is not a CSV file')


def _delimiter(text: str) -> str:
    """The delimiter that gives both columns in the header, or else the most frequent one."""
    header = next(iter(text.splitlines()), "")
    for delimiter in _DELIMITERS:
        names = next(csv.reader([header], delimiter=delimiter, skipinitialspace=True), [])
        if {FILE, INDEX} <= {name.strip() for name in names}:
            return delimiter
    return max(_DELIMITERS, key=header.count)


def _index(value: str | None, task: Task, where: str) -> int:
    count = len(task.classes)
    text = (value or "").strip()
    if not text.isdecimal():
        raise UserError(
            f'{where}: {INDEX} "{_short(text)}" is not a whole number from 0 to {count - 1}'
        )
    # int() refuses thousands of digits.
    if len(text) > _LONGEST or int(text) >= count:
        raise UserError(
            f"{where}: {INDEX} {_short(text)} lies beyond the {count} classes: 0 to {count - 1}"
        )
    return int(text)
