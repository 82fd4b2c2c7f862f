"""What the scripts share: options from a dataclass, and errors told in one line."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import tyro

from envs.errors import UserError, nearest

Options = TypeVar("Options")

USER_ERROR = 2
INTERRUPTED = 130


class _StderrHandler(logging.StreamHandler[Any]):
    """Writes to what standard error is at the time: a progress bar puts itself in between."""

    @property
    def stream(self) -> Any:
        """Standard error, as it is now."""
        return sys.stderr

    @stream.setter
    def stream(self, value: Any) -> None:
        pass


def run_script(main: Callable[[list[str]], None]) -> None:
    """Runs a script's ``main`` on its arguments and exits.

    What a user can mend is told in one line (status 2), Ctrl-C in another (status 130).
    """
    logging.basicConfig(format="%(message)s", level=logging.WARNING, handlers=[_StderrHandler()])
    logging.getLogger("agents").setLevel(logging.INFO)
    try:
        main(sys.argv[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(USER_ERROR)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)


def parse_options(options: type[Options], arguments: Sequence[str], default: Options) -> Options:
    """Reads a command line into a dataclass; ``--help`` prints its fields and exits.

    Args:
        options: a dataclass whose attribute docstrings explain its fields.
        arguments: without the program's name.
        default: what is not on the command line.

    Raises:
        UserError: an option is unknown, or a value is not of its type.
    """
    if {"-h", "--help"} & set(arguments):
        tyro.cli(options, args=list(arguments), default=default, description=options.__doc__)
    known = _option_names(options, default)
    for argument in arguments:
        name = argument.split("=")[0].replace("_", "-")
        if name.startswith("--") and name not in known:
            raise UserError(f'unknown option "{argument}".{nearest(name, known)}')
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told), contextlib.redirect_stdout(told):
            return tyro.cli(options, args=list(arguments), default=default)
    except SystemExit as error:
        raise UserError(_one_line(told.getvalue())) from error


def _option_names(options: type[Options], default: Options) -> set[str]:
    """Every option's name, read off the help, which is where a user reads them."""
    told = io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.suppress(SystemExit):
        tyro.cli(options, args=["--help"], default=default)
    return set(re.findall(r"--[a-z][\w.-]*[a-z0-9]", told.getvalue()))


def _one_line(box: str) -> str:
    """The text in a box that tyro draws, without its frame, its rules and its hint at --help."""
    lines = [line.strip("╭╮╰╯│─ \n") for line in box.splitlines()]
    text = " ".join(line for line in lines if line and not line.startswith("For full helptext"))
    return re.sub(r"^(Parsing error|Invalid value|Unrecognized options)\s*", "", text)
