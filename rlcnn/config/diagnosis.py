"""What is wrong with a command line, in one line."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from rlcnn.config.hints import hint_at_choice, hint_at_number, hint_at_option, split_option
from rlcnn.config.options import Option

# What begins an option, also where one dash is missing or an editor made another of two; no number.
_DASHES = re.compile(r"^[-\u2010-\u2015\u2212]+(?=[a-z])", re.IGNORECASE)


def unknown_option(arguments: Sequence[str], known: Collection[str]) -> str | None:
    """What to say of the first argument that looks like an option and is none."""
    for argument in arguments:
        name = _DASHES.sub("--", argument.split("=")[0].replace("_", "-"))
        if name == argument == "--":
            return None
        if name.startswith("--") and (name not in known or not argument.startswith("--")):
            return f'unknown option "{argument}".{hint_at_option(name, known)}'
    return None


def problem_with_value(option: Option, text: str) -> str | None:
    """What is wrong with a value, as it follows the option's name; None if nothing is."""
    try:
        option.convert_one(text)
    except (KeyError, ValueError):
        if option.choices:
            hint = hint_at_choice(option.name, text, option.choices)
            return f'"{text}" is unknown: expected one of {", ".join(option.choices)}.{hint}'
        kind = "whole number" if option.kind is int else "number"
        if option.optional:
            return f'"{text}" is neither a {kind} nor None'
        return f'"{text}" is not a {kind}.{hint_at_number(text) if option.kind is int else ""}'
    return None


def no_value(option: str) -> str:
    """What to say of an option without its value."""
    # A switch in other libraries.
    hint = ' Did you mean "--track online"?' if option == "--track" else ""
    return f"{option} takes a value: none given.{hint}".rstrip(".")


def unexpected(value: str, before: str, known: Mapping[str, Option]) -> str:
    """What to say of a value too many, by the option before it."""
    option = known.get(before)
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
    elif option and option.arg.repeatable:
        hint = f": {before} takes one value; repeat the option: {before} {value}"
    elif option:
        hint = f": {before} takes {'one' if option.takes else 'no'} value"
    return f'unexpected argument "{value}"{hint}'.rstrip(".")
