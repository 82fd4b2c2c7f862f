"""Pieces of HTML, in which everything that is not markup is escaped."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NewType

Markup = NewType("Markup", str)
"""Text that is HTML already; any other text is data."""


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: above it.
        kind: "" for words, "n" for numbers, which stand to the right in one line, "long" for what
            may take several lines.
    """

    name: str
    kind: str = ""


def escape(text: object) -> Markup:
    """Data as it must stand in HTML, also within an attribute."""
    return Markup(html.escape(str(text), quote=True))


def breakable(text: str) -> Markup:
    """:func:`escape`, with places where long names of arms and files may be broken.

    Behind what divides their parts, and within a part that is longer than a phone's column.
    """
    places = r"([:@/,])(?=[^\s\d])|([^\s:@/,-]{20})(?=[^\s:@/,-])"
    return Markup(escape(re.sub(places, "\\1\\2\0", text)).replace("\0", "<wbr>"))


def join(parts: Iterable[Markup], between: str = "\n") -> Markup:
    """Pieces one after another."""
    return Markup(between.join(part for part in parts if part))


def element(name: str, content: Markup, **attributes: str) -> Markup:
    """``<name attribute="value">content</name>``; a trailing underscore of an attribute is cut."""
    return Markup(f"<{name}{_attributes(attributes)}>{content}</{name}>")


def paragraph(text: str, kind: str = "") -> Markup:
    """Text as a paragraph."""
    return element("p", escape(text), **({"class_": kind} if kind else {}))


def bullets(lines: Sequence[str]) -> Markup:
    """Lines as a list; nothing where there are none."""
    if not lines:
        return Markup("")
    items = join(element("li", escape(line)) for line in lines)
    return element("ul", items, class_="notes")


def table(
    columns: Sequence[Column],
    rows: Iterable[tuple[Sequence[Markup], str]],
    label: str,
) -> Markup:
    """A table that scrolls sideways within its box.

    Args:
        columns: of it.
        rows: of each its cells and its class, which may be empty. Where there are fewer cells than
            columns, the last one takes the rest. A row of the class "group" has one cell, which is
            the heading of the rows that follow.
        label: what the table is, for who cannot see it.
    """
    head = join(
        Markup(f'<th scope="col"{_class(column.kind)}>{escape(column.name)}</th>')
        for column in columns
    )
    parts: list[list[Markup]] = [[]]
    for cells, kind in rows:
        if kind == "group" and parts[-1]:
            parts.append([])
        row = join(_cells(columns, cells, "rowgroup" if kind == "group" else "row"))
        parts[-1].append(element("tr", row, **({"class_": kind} if kind else {})))
    bodies = join(element("tbody", join(part)) for part in parts)
    inner = f"<table><thead><tr>{head}</tr></thead>\n{bodies}\n</table>"
    # Where it scrolls it must be within reach of a keyboard.
    return Markup(
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(label)}">{inner}</div>'
    )


def image(content: bytes, kind: str, alt: str) -> Markup:
    """A picture that is part of the page; ``kind`` is its type, such as "image/png"."""
    return Markup(f'<img src="{data_uri(content, kind)}" alt="{escape(alt)}">')


def data_uri(content: bytes, kind: str) -> str:
    """Content as an address that holds it."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _cells(columns: Sequence[Column], cells: Sequence[Markup], scope: str) -> Iterable[Markup]:
    for place, cell in enumerate(cells):
        rest = len(columns) - len(cells) + 1 if place == len(cells) - 1 else 1
        kind = columns[place].kind if rest == 1 else ""
        across = f' colspan="{rest}"' if rest > 1 else ""
        if place == 0:
            yield Markup(f'<th scope="{scope}"{across}{_class(kind)}>{cell}</th>')
        else:
            yield Markup(f"<td{across}{_class(kind)}>{cell}</td>")


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""


def _attributes(attributes: dict[str, str]) -> str:
    return "".join(
        f' {name.removesuffix("_").replace("_", "-")}="{escape(value)}"'
        for name, value in attributes.items()
    )
