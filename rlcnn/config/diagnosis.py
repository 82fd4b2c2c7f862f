"""What is wrong with a command line that does not fit its options, in one line."""

from __future__ import annotations

import dataclasses
import math
import re
import types
from collections.abc import Iterable, Sequence
from dataclasses import MISSING, dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import tyro

from rlcnn.config.fields import option_name, whole_number
from rlcnn.config.hints import hint_at_choice, hint_at_number, hint_at_option, split_option

# What begins an option, also where one dash is missing or an editor made another of two; no number.
_DASHES = re.compile(r"^[-\u2010-\u2015\u2212]+(?=[a-z])", re.IGNORECASE)


@dataclass(frozen=True)
class Option:
    """An option, or a positional argument.

    Attributes:
        name: ``--ppo.gamma``; of a positional argument the name in the help.
        kind: the type of its value, or of each of its values.
        takes: how many values: 0, 1 or infinity.
        optional: whether its value may be None.
        required: whether it has no default.
        positional: whether its values come without its name.
        may_be_empty: whether an empty text is its default.
    """

    name: str
    kind: Any
    takes: float
    optional: bool = False
    required: bool = False
    positional: bool = False
    may_be_empty: bool = False


def list_options(cls: type[Any], *, required: bool, section: str = "") -> dict[str, Option]:
    """The options of a dataclass by every name that a command line may use.

    Args:
        cls: the dataclass.
        required: whether a field without a default must be given.
        section: the field of a larger dataclass that holds this one.
    """
    hints = get_type_hints(cls, include_extras=True)
    found: dict[str, Option] = {}
    for field in dataclasses.fields(cls):
        kind, *marks = _unwrap(hints[field.name])
        if tyro.conf.Suppress in marks:
            continue
        if dataclasses.is_dataclass(kind):
            found |= list_options(kind, required=required, section=f"{field.name}.")  # type: ignore[arg-type]
            continue
        needed = required and field.default is MISSING and field.default_factory is MISSING
        optional = get_origin(kind) in (Union, types.UnionType) and type(None) in get_args(kind)
        if optional:
            kind = next(part for part in get_args(kind) if part is not type(None))
        takes: float = 0 if kind is bool else 1
        if get_origin(kind) is dict:
            takes = math.inf
        elif get_origin(kind) is tuple:
            takes = 1 if tyro.conf.UseAppendAction in marks else math.inf
            kind = _unwrap(get_args(kind)[0])[0]
        option = Option(
            option_name(section + field.name),
            kind,
            takes,
            optional,
            needed,
            may_be_empty=field.default == "",
        )
        if tyro.conf.Positional in marks:
            name = next((mark.metavar for mark in marks if hasattr(mark, "metavar")), None)
            name = (name or field.name.upper()).rstrip(".")
            option = dataclasses.replace(option, name=name, positional=True)
        found[option.name] = option
        if kind is bool and tyro.conf.FlagCreatePairsOff not in marks:
            found[option_name(f"{section}no-{field.name}")] = option
    return found


def problem_with(arguments: Sequence[str], options: dict[str, Option]) -> str | None:
    """The first thing wrong with a command line; None where it fits the options."""
    known = [name for name, option in options.items() if not option.positional]
    if unknown := _unknown_option(arguments, known):
        return unknown
    places = [option for option in options.values() if option.positional]
    room = sum(option.takes for option in places)
    given = set()
    for name, values in _by_option(arguments, known):
        option = options.get(name, Option("", str, 0))
        given.add(option.name)
        if option.takes == 1 and not values:
            return _no_value(name)
        count = int(min(option.takes, len(values)))
        for value in values[:count]:
            if problem := _problem_with_value(option, value):
                return f"{name} {problem}"
        if get_origin(option.kind) is dict and len(values) % 2:
            return f"{name} takes pairs, NAME VALUE NAME VALUE ..."
        # What comes after an option's values is positional.
        extra = values[count:]
        if len(extra) > room:
            return _unexpected(extra[int(room)], name, option.takes, known)
        room -= len(extra)
        given |= {place.name for place in places if extra}
    missing = [o.name for o in options.values() if o.required and o.name not in given]
    return f"{missing[0]} is missing; --help describes it" if missing else None


def option_without_text(arguments: Sequence[str], options: dict[str, Option]) -> str | None:
    """The first option with an empty value, as of a shell's variable that is not set.

    As a path it would be the working directory.
    """
    known = [name for name, option in options.items() if not option.positional]
    place = next((name for name, option in options.items() if option.positional), None)
    for name, values in _by_option(arguments, known):
        option = options.get(name, Option("", str, 0))
        count = int(min(option.takes, len(values)))
        if "" in values[:count] and not option.may_be_empty:
            return name
        if "" in values[count:]:
            return place
    return None


def _unwrap(hint: Any) -> tuple[Any, ...]:
    """A type without its annotations, and these."""
    if get_origin(hint) is not Annotated:
        return (hint,)
    kind, *marks = get_args(hint)
    return kind, *marks


def _unknown_option(arguments: Sequence[str], known: Iterable[str]) -> str | None:
    for argument in arguments:
        name = _DASHES.sub("--", argument.split("=")[0].replace("_", "-"))
        if name == argument == "--":
            return None
        if name.startswith("--") and (name not in known or not argument.startswith("--")):
            return f'unknown option "{argument}".{hint_at_option(name, list(known))}'
    return None


def _by_option(arguments: Sequence[str], known: Iterable[str]) -> list[tuple[str, list[str]]]:
    """The arguments that follow each option; the first have none before them."""
    groups: list[tuple[str, list[str]]] = [("", [])]
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if (name := name.replace("_", "-")) in known:
            groups.append((name, [value] if equals else []))
        else:
            groups[-1][1].append(argument)
    return groups


def _problem_with_value(option: Option, text: str) -> str | None:
    """What is wrong with a value, as it follows the option's name."""
    if option.optional and text == "None":
        return None
    if get_origin(option.kind) is Literal:
        choices = [str(choice) for choice in get_args(option.kind)]
        if text in choices:
            return None
        hint = hint_at_choice(option.name, text, choices)
        return f'"{text}" is unknown: expected one of {", ".join(choices)}.{hint}'
    if option.kind not in (int, float):
        return None
    try:
        whole_number(text) if option.kind is int else float(text)
    except ValueError:
        if option.optional:
            kind = "whole number" if option.kind is int else "number"
            return f'"{text}" is neither a {kind} nor None'
        if option.kind is float:
            return f'"{text}" is not a number'
        return f'"{text}" is not a whole number.{hint_at_number(text)}'
    return None


def _no_value(option: str) -> str:
    # A switch in other libraries.
    hint = ' Did you mean "--track online"?' if option == "--track" else ""
    return f"{option} takes a value: none given.{hint}".rstrip(".")


def _unexpected(value: str, before: str, takes: float, known: Sequence[str]) -> str:
    """What to say of a value too many, by the option before it and how many values that takes."""
    section, last = split_option(before)
    stem = last.removeprefix("no-")
    switches = [f"--{section}.{word}".replace("--.", "--") for word in (stem, f"no-{stem}")]
    name, equals, _ = value.partition("=")
    hint = ""
    if before and set(switches) <= set(known):
        hint = f": {before} takes no value; it is {' or '.join(switches)}"
    elif before == "--games":
        hint = ": --games takes one value, separated by commas: Pong,Breakout"
    elif before == "--seeds":
        hint = ": --seeds takes how many, which count up from --seed"
    elif equals and not name.startswith("-"):
        hint = "." + hint_at_option(f"--{name}", known)
    elif before:
        hint = f": {before} takes {'one' if takes else 'no'} value"
    return f'unexpected argument "{value}"{hint}'.rstrip(".")
