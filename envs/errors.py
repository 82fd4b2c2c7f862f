"""Errors a user can cause, told in one line."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable


class UserError(ValueError):
    """One clear line that names the value, what was expected and the nearest valid choice.

    Scripts print it as ``error: ...`` and exit with status 2; no traceback is shown.
    """


def nearest(
    name: str, choices: Iterable[str], key: Callable[[str], str] = str.lower, cutoff: float = 0.4
) -> str:
    """A hint such as ``Did you mean "impala"?`` with a leading space, or nothing.

    Args:
        name: what the user gave.
        choices: what would have been valid.
        key: what of a name is compared; of choices with equal keys the last is named.
        cutoff: likeness (0 to 1, by ``difflib``) below which there is no hint.
    """
    by_key = {key(choice): choice for choice in choices}
    close = difflib.get_close_matches(key(name), by_key, n=1, cutoff=cutoff)
    return f' Did you mean "{by_key[close[0]]}"?' if close else ""
