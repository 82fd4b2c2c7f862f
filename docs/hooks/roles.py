"""A hook of mkdocs: Sphinx's roles in docstrings, ``:class:`~a.b.Name```, become code."""

from __future__ import annotations

import re
from typing import Any

_ROLE = re.compile(r":(?:class|meth|func|mod|data|attr|exc):<code>([^<]*)</code>")


def on_page_content(html: str, **_: Any) -> str:
    """Shows the whole name of a role, or the last part of one that begins with ``~``."""

    def name(found: re.Match[str]) -> str:
        target = found[1]
        return f"<code>{target.rpartition('.')[2] if target.startswith('~') else target}</code>"

    return _ROLE.sub(name, html)
