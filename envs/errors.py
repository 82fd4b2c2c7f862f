"""User errors, each one line."""

from __future__ import annotations

import difflib
import os
import shlex
import sysconfig
import traceback
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path


class UserError(ValueError):
    """One clear line that names the value, what was expected and the nearest valid choice.

    Scripts print it as ``error: ...`` without a traceback and exit with status 2. Line breaks and
    control characters, as in names of files, are escaped.
    """

    def __init__(self, message: object) -> None:
        super().__init__(printable(str(message)))


def in_shell(path: str | os.PathLike[str]) -> str:
    """A path quoted for a shell command in a message."""
    return shlex.quote(os.fspath(path))


class EnvironmentFailure(UserError):  # noqa: N818
    """An environment raised an error or broke Gymnasium's interface during play."""


def describe_error(error: BaseException) -> str:
    """An error of the user's code in one line: its type, message and place.

    The place is the innermost one in the user's code, or else in an installed package.
    """
    try:
        text = " ".join(str(error).split())
    except Exception:
        # The message itself raises an error; the type remains.
        text = ""
    if len(text) > _LONGEST_MESSAGE:
        text = f"{text[:_LONGEST_MESSAGE]}..."
    line = f"{type(error).__name__}: {text}" if text else type(error).__name__
    # The message of a SyntaxError names the place.
    if isinstance(error, SyntaxError):
        return line
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(_LIBRARY)
    ]
    own = [frame for frame in frames if not frame.filename.startswith(_INSTALLED)] or frames
    return f"{line} ({own[-1].filename}, line {own[-1].lineno})" if own else line


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or the error's kind where it has no message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def printable(text: str) -> str:
    r"""The text with unprintable characters escaped, such as a line break as ``\n``."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def _inside(*directories: str) -> tuple[str, ...]:
    return tuple(os.path.join(directory, "") for directory in directories)


# Longer error messages are cut.
_LONGEST_MESSAGE = 500

_OURS = [str(Path(__file__).parents[1] / name) for name in ("envs", "rlcnn", "agents", "scripts")]
_INSTALLED = _inside(sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))
# Names that start with "<" are not files, such as "<frozen importlib._bootstrap>".
# Found without its import, which is slow.
_GYMNASIUM = getattr(find_spec("gymnasium"), "submodule_search_locations", None) or []
_LIBRARY = ("<", *_inside(sysconfig.get_path("stdlib"), *_GYMNASIUM, *_OURS))


def nearest(
    name: str, choices: Iterable[str], key: Callable[[str], str] = str.lower, cutoff: float = 0.6
) -> str:
    """A hint such as ``Did you mean "impala"?`` with a leading space, or nothing.

    ``key`` maps a name to the part that is compared; of choices with equal keys the last is named.
    ``cutoff`` is the least similarity for a hint, 0 to 1, by ``difflib``.
    """
    by_key = {key(choice): choice for choice in choices}
    close = difflib.get_close_matches(key(name), by_key, n=1, cutoff=cutoff)
    return f' Did you mean "{by_key[close[0]]}"?' if close else ""
