"""The text of ``--help``: what a script does, examples, and its options in groups."""

from __future__ import annotations

import inspect
import shutil
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import MISSING
from itertools import groupby, takewhile
from pathlib import Path
from typing import Any

from rlcnn.config.options import Option

_WIDEST = 100
# From this width on, explanations stand beside the options, and below them otherwise.
_TWO_COLUMNS, _COLUMN, _BELOW = 80, 28, 8


def help_text(cls: type[Any], options: list[Option]) -> str:
    """The help of a script.

    Args:
        cls: a dataclass; its docstring says what the script does, and gives examples as indented
            lines.
        options: all or some of its options.
    """
    width = max(40, min(_WIDEST, shutil.get_terminal_size().columns))
    places = [option.arg.metavar or option.name for option in options if option.arg.positional]
    usage = " ".join(["usage:", Path(sys.argv[0]).name, *places, "[OPTIONS]"])
    parts = [
        "\n".join(_wrap(usage, width)),
        *_paragraphs(inspect.cleandoc(cls.__doc__ or ""), width),
    ]
    for title, members in groupby(options, lambda option: _title(cls, option)):
        lines = [line for option in members for line in _lines(option, width)]
        parts.append("\n".join([*_wrap(f"{title}:", width), *lines]))
    return "\n\n".join(parts)


def _title(cls: type[Any], option: Option) -> str:
    """What heads an option's group; classes with the same first line share a group."""
    if option.group is cls:
        return "Options"
    return (inspect.getdoc(option.group) or "").splitlines()[0].rstrip(".")


def _paragraphs(text: str, width: int) -> list[str]:
    """Paragraphs folded to the width; indented lines are commands, and go on after a backslash."""
    return ["\n".join(_folded(part, width)) for part in text.split("\n\n")]


def _folded(paragraph: str, width: int) -> Iterator[str]:
    lines = paragraph.splitlines()
    prose = list(takewhile(lambda line: not line.startswith(" "), lines))
    yield from _wrap(" ".join(prose), width)
    for command in lines[len(prose) :]:
        yield from " \\\n".join(_wrap(command, width - 2, " " * 6)).splitlines()


def _wrap(text: str, width: int, later: str = "") -> list[str]:
    return textwrap.wrap(text, width, subsequent_indent=later, break_on_hyphens=False)


def _lines(option: Option, width: int) -> list[str]:
    """An option and its explanation."""
    invocation = option.arg.metavar if option.arg.positional else ", ".join(option.names)
    head = f"  {invocation} {'' if option.arg.positional else option.metavar}".rstrip()
    heads = [head]
    if len(head) > width:
        heads = _wrap(head.replace(",", ", "), width, " " * 4)
    indent = _COLUMN if width >= _TWO_COLUMNS else _BELOW
    text = f"{option.help} {_default(option)}".strip()
    lines = [" " * indent + line.replace("\xa0", " ") for line in _wrap(text, width - indent)]
    if len(head) + 2 <= indent and lines:
        return [head + lines[0][len(head) :], *lines[1:]]
    return [*heads, *lines]


def _default(option: Option) -> str:
    """The default, after a space at which no line is broken."""
    value = option.default
    if value is MISSING:
        return "(required)"
    switch_off = value is False and not option.arg.negatable
    if switch_off or (value is None and "None" not in option.help):
        # The explanation says what happens then.
        return ""
    if isinstance(value, dict):
        value = [part for pair in value.items() for part in pair]
    if isinstance(value, tuple | list):
        value = " ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        value = "on" if value else "off"
    shown = '""' if value == "" else value
    return f"(default:\xa0{shown})"
