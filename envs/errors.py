"""Errors a user can cause, told in one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """One clear line that names the value, what was expected and the nearest valid choice.

    Scripts print it as ``error: ...`` and exit with status 2; no traceback is shown.
    """


def nearest(name: str, choices: Iterable[str]) -> str:
    """A hint such as ``Did you mean "impala"?`` with a leading space, or nothing."""
    by_lower = {choice.lower(): choice for choice in choices}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.4)
    return f' Did you mean "{by_lower[close[0]]}"?' if close else ""
