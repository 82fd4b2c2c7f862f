"""Errors a user can cause, each in one line."""

from __future__ import annotations

import difflib
import os
import shlex
import sysconfig
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path

import gymnasium as gym


class UserError(ValueError):
    """One clear line that names the value, what was expected and the nearest valid choice.

    Scripts print it as ``error: ...`` and exit with status 2; no traceback is shown. Names of
    files and messages of others may hold line breaks and control characters: they are escaped.
    """

    def __init__(self, message: object) -> None:
        super().__init__(printable(str(message)))


def in_shell(path: str | os.PathLike[str]) -> str:
    """A path as a shell takes it, for a command that a message hands over."""
    return shlex.quote(os.fspath(path))


class EnvironmentFailure(UserError):  # noqa: N818
    """An environment raised something, or broke Gymnasium's interface, while it was played."""


def describe_error(error: BaseException) -> str:
    """An error of the user's own code in one line: its kind, what it says, and where it arose.

    The place is the innermost one in the user's code, or else in an installed package.
    """
    try:
        text = " ".join(str(error).split())
    except Exception:
        # Of an error that cannot say what it is, its kind tells the most.
        text = ""
    if len(text) > _LONGEST_MESSAGE:
        text = f"{text[:_LONGEST_MESSAGE]}..."
    line = f"{type(error).__name__}: {text}" if text else type(error).__name__
    # A SyntaxError says itself where it is.
    if isinstance(error, SyntaxError):
        return line
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(_LIBRARY)
    ]
    own = [frame for frame in frames if not frame.filename.startswith(_INSTALLED)] or frames
    return f"{line} ({own[-1].filename}, line {own[-1].lineno})" if own else line


def printable(text: str) -> str:
    r"""The text with whatever no terminal shows as it is, such as a line break, written ``\n``."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def _inside(*directories: str) -> tuple[str, ...]:
    return tuple(os.path.join(directory, "") for directory in directories)


# So much of an error's message is given in a line.
_LONGEST_MESSAGE = 500

_OURS = [str(Path(__file__).parents[1] / name) for name in ("envs", "rlcnn", "agents", "scripts")]
_INSTALLED = _inside(sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))
# "<" begins what is no file, such as "<frozen importlib._bootstrap>".
_LIBRARY = ("<", *_inside(sysconfig.get_path("stdlib"), os.path.dirname(gym.__file__), *_OURS))


def nearest(
    name: str, choices: Iterable[str], key: Callable[[str], str] = str.lower, cutoff: float = 0.6
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
