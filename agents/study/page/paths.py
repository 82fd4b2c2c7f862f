"""Text without the paths of the machine that made a study."""

from __future__ import annotations

import re

# A path from the root or the home directory, but no address such as https://host/page.
_PATH = re.compile(r"(?<![\w./-])~?/(?:[^\s/\"'`,;:@()<>]+/)*([^\s/\"'`,;:@()<>]+)/?")


def without_paths(text: str) -> str:
    """``text`` with the last part of each absolute path in the path's place."""
    return _PATH.sub(r"\1", text)
