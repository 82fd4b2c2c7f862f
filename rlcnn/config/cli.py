"""Options of a dataclass from a command line; the help comes from its fields' docstrings."""

from __future__ import annotations

import contextlib
import dataclasses
import io
from collections.abc import Sequence
from typing import Any, TypeVar

import tyro

from envs.errors import UserError
from rlcnn.config.diagnosis import list_options, option_without_text, problem_with
from rlcnn.config.fields import expand_home, whole_number
from rlcnn.runs.weights_and_biases import mode_from_environment

Options = TypeVar("Options")

_EMPTY = '{} takes a value: "" is empty'


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
    if empty := option_without_text(arguments, list_options(options, required=default is None)):
        raise UserError(_EMPTY.format(empty))
    return parsed if default is None else _with_default_encoder_options(parsed, default, arguments)


def _with_default_encoder_options(
    parsed: Options, default: Options, arguments: Sequence[str]
) -> Options:
    """``parsed`` with the default's encoder options that were not given.

    Those of another encoder do not apply.
    """
    if not hasattr(parsed, "encoder_options"):
        return parsed
    values, defaults = vars(parsed), vars(default)
    names = {argument.partition("=")[0].replace("_", "-") for argument in arguments}
    given = values["encoder_options"] if "--encoder-options" in names else {}
    kept = defaults["encoder_options"] if values["encoder"] == defaults["encoder"] else {}
    return dataclasses.replace(parsed, encoder_options={**kept, **given})  # type: ignore[type-var]


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
        raise UserError(_EMPTY.format(option))
    return value if value is None else expand_home(value)
