"""Options of a dataclass from a command line; the help comes from its fields' docstrings."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Collection, Sequence
from dataclasses import MISSING
from typing import Any, TypeVar, get_origin

from envs.errors import UserError
from rlcnn.config.diagnosis import no_value, problem_with_value, unexpected, unknown_option
from rlcnn.config.fields import expand_home
from rlcnn.config.help import help_text
from rlcnn.config.options import Option, list_options, own_default
from rlcnn.runs.tracking.weights_and_biases import mode_from_environment

Options = TypeVar("Options")

_EMPTY = '{} takes a value: "" is empty'


def parse_options(
    options: type[Options],
    arguments: Sequence[str],
    default: Any = None,
    hidden: Collection[str] = (),
) -> Options:
    """Reads a command line into a dataclass; ``--help`` prints its fields and exits.

    Args:
        options: a dataclass whose attribute docstrings explain its fields.
        arguments: without the program's name.
        default: an instance with the values that are not on the command line; without it the
            fields' own defaults count, and fields without one must be given. The environment may
            replace its ``track``: see
            :func:`~rlcnn.runs.tracking.weights_and_biases.mode_from_environment`.
        hidden: fields that are no options.

    Raises:
        UserError: an option is unknown, or a value is not of its type.
    """
    arguments = [expand_home(argument) for argument in arguments]
    if hasattr(default, "track"):
        default = dataclasses.replace(default, track=mode_from_environment(default.track))
    known = [each for each in list_options(options, default) if each.field not in hidden]
    if {"-h", "--help"} & set(arguments):
        print(help_text(options, known))
        sys.exit(0)
    values = _read(arguments, known)
    if hasattr(default, "encoder_options"):
        # Those of another encoder do not apply.
        same = values.get("encoder", default.encoder) == default.encoder
        given = values.get("encoder_options", {})
        values["encoder_options"] = {**(default.encoder_options if same else {}), **given}
    return _with_values(options, default, values)


def given_fields(options: type, arguments: Sequence[str], default: Any = None) -> set[str]:
    """The fields that a command line sets, also to their defaults, by names: ``ppo.gamma``.

    Raises:
        UserError: as :func:`parse_options`.
    """
    return set(_read(arguments, list_options(options, default)))


def given_value(arguments: Sequence[str], option: str) -> str | None:
    """The last value given to ``option``, written ``--option VALUE`` or ``--option=VALUE``.

    ``--an_option`` is ``--an-option``.

    Raises:
        UserError: the value is empty.
    """
    value = None
    for name, texts in _by_option(arguments, {option}):
        if name == option and texts and not texts[0].startswith("--"):
            value = texts[0]
    if value == "":
        raise UserError(_EMPTY.format(option))
    return value if value is None else expand_home(value)


def _read(arguments: Sequence[str], options: list[Option]) -> dict[str, Any]:
    """The values of all fields that a command line gives, by their names: ``ppo.gamma``."""
    named = {name: o for o in options if not o.arg.positional for name in o.names}
    place = next((option for option in options if option.arg.positional), None)
    room = place.takes if place else 0
    if unknown := unknown_option(arguments, named):
        raise UserError(unknown)
    values: dict[str, Any] = {}
    rest: list[str] = []
    for name, texts in _by_option(arguments, named):
        takes = named[name].takes if name else 0
        if not texts and (takes == 1 or (takes > 1 and named[name].arg.repeatable)):
            raise UserError(no_value(name))
        count = int(min(takes, len(texts)))
        if name:
            option = named[name]
            value = _value(option, name, texts[:count])
            if option.arg.repeatable:
                added = (value,) if takes > 1 else value
                value = (*values.get(option.field, ()), *added)
            values[option.field] = value
        # What comes after an option's values is positional.
        rest += texts[count:]
        if len(rest) > room:
            raise UserError(unexpected(rest[int(room)], name, named))
    if place and rest:
        values[place.field] = _value(place, place.name, rest)
    for option in options:
        if option.default is MISSING and option.field not in values:
            raise UserError(f"{option.name} is missing; --help describes it")
    return values


def _by_option(arguments: Sequence[str], known: Collection[str]) -> list[tuple[str, list[str]]]:
    """The arguments that follow each option; those that follow none, or ``--``, stand under ""."""
    groups: list[tuple[str, list[str]]] = [("", [])]
    for number, argument in enumerate(arguments):
        if argument == "--":
            return [*groups, ("", list(arguments[number + 1 :]))]
        name, equals, value = argument.partition("=")
        if (name := name.replace("_", "-")) in known:
            groups.append((name, [value] if equals else []))
        else:
            groups[-1][1].append(argument)
    return groups


def _value(option: Option, name: str, texts: list[str]) -> Any:
    for text in texts:
        if problem := problem_with_value(option, text):
            raise UserError(f"{name} {problem}")
    if get_origin(option.kind) is dict and len(texts) % 2:
        given = " ".join(texts)
        raise UserError(f'{name} "{given}": expected pairs, NAME VALUE NAME VALUE ...')
    if "" in texts and not option.may_be_empty:
        # As of a shell's variable that is not set; as a path it would be the working directory.
        raise UserError(_EMPTY.format(name))
    value = option.convert(texts, name)
    for key, one in value.items() if isinstance(value, dict) else ():
        if isinstance(one, float) and not math.isfinite(one):
            # JSON has no such numbers, and the run's configuration keeps its options in it.
            raise UserError(f'{name} "{key} {one}": expected a finite number, a word or None')
    return value


def _with_values(cls: type[Options], default: Any, values: dict[str, Any]) -> Options:
    """``default``, or a new instance, with values by the names of their fields."""
    own = {name: value for name, value in values.items() if "." not in name}
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        begin = f"{field.name}."
        inside = {n.removeprefix(begin): v for n, v in values.items() if n.startswith(begin)}
        if inside:
            section: Any = own_default(field) if default is None else getattr(default, field.name)
            own[field.name] = _with_values(type(section), section, inside)
    return cls(**own) if default is None else dataclasses.replace(default, **own)
