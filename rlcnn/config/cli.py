"""Options of a dataclass from a command line; the help comes from its fields' docstrings."""

from __future__ import annotations

import contextlib
import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro

from envs.errors import UserError
from rlcnn.config.diagnosis import list_options, problem_with, whole_number
from rlcnn.config.fields import expand_home, option_name
from rlcnn.runs.weights_and_biases import mode_from_environment

Options = TypeVar("Options")


def parse_options(options: type[Options], arguments: Sequence[str], default: Any = None) -> Options:
    """Reads a command line into a dataclass; ``--help`` prints its fields and exits.

    Args:
        options: a dataclass whose attribute docstrings explain its fields.
        arguments: without the program's name.
        default: an instance with the values that are not on the command line; without it the
            fields' own defaults count, and fields without one must be given. The environment may
            replace its ``track``: see :func:`rlcnn.runs.weights_and_biases.mode_from_environment`.

    Raises:
        UserError: an option is unknown, or a value is not of its type.
    """
    arguments = [expand_home(argument) for argument in arguments]
    if hasattr(default, "track"):
        default = dataclasses.replace(default, track=mode_from_environment(default.track))
    chosen = {} if default is None else {"default": default}
    if {"-h", "--help"} & set(arguments):
        tyro.cli(options, args=["--help"], description=options.__doc__, **chosen)
    output = io.StringIO()
    try:
        with contextlib.redirect_stderr(output), contextlib.redirect_stdout(output):
            parsed = tyro.cli(options, args=list(arguments), registry=_REGISTRY, **chosen)
    except SystemExit as error:
        known = list_options(options, required=default is None)
        raise UserError(problem_with(arguments, known) or _flat(output.getvalue())) from error
    for field in dataclasses.fields(parsed):
        value = getattr(parsed, field.name)
        # Empty, as a shell's variable that is not set, a path would be the working directory.
        if isinstance(value, Path) or (value == "" and field.default != ""):
            given_value(arguments, option_name(field.name))
    return parsed


def _flat(box: str) -> str:
    """The text of a box that tyro draws, in one line."""
    return " ".join(" ".join(line.strip("╭╮╰╯│─ ") for line in box.splitlines()).split())


_REGISTRY = tyro.constructors.ConstructorRegistry()


@_REGISTRY.primitive_rule
def _whole_number_rule(
    info: tyro.constructors.PrimitiveTypeInfo,
) -> tyro.constructors.PrimitiveConstructorSpec[int] | None:
    if info.type is not int:
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="INT",
        instance_from_str=lambda texts: whole_number(texts[0]),
        is_instance=lambda value: type(value) is int,
        str_from_instance=lambda value: [str(value)],
    )


def given_value(arguments: Sequence[str], option: str) -> str | None:
    """The last value given to ``option``, written ``--option VALUE`` or ``--option=VALUE``.

    ``--an_option`` is ``--an-option``.

    Raises:
        UserError: the value is empty.
    """
    value = None
    for argument, following in zip(arguments, [*arguments, "--"][1:], strict=True):
        name, equals, given = argument.partition("=")
        if name.replace("_", "-") != option:
            continue
        if equals:
            value = given
        elif not following.startswith("--"):
            value = following
    if value == "":
        raise UserError(f'{option} takes a value: "" is empty')
    return value if value is None else expand_home(value)
