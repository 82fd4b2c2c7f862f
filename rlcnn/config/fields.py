"""Options as annotated fields of dataclasses: their types and limits, checked in one line each.

A field says what it accepts: ``Annotated[int, Interval(ge=1)]``, ``Literal["on", "off"]``, or a
:class:`Rule`; :class:`Arg` says how it appears on a command line. :func:`check_options` reads these
annotations, and :func:`from_json` the types of the defaults. Nothing here needs torch, so that
``--help`` is quick.
"""

from __future__ import annotations

import dataclasses
import math
import operator
import os
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from annotated_types import Interval

from envs.errors import UserError, nearest

# Where a path may begin within a value: ~/x, --run-dir=~/x, folder:~/x, frozen:NET@~/x, a,~/x.
_HOME = re.compile(r"(?:^|(?<=[=:@,]))~[^/=:@,]*(?=/|$)")

Config = TypeVar("Config")
OptionValue = int | float | bool | str | None


@dataclass(frozen=True)
class Rule:
    """A condition beside a field that a type or an interval does not express.

    Attributes:
        problem: what is wrong with a value, as it follows the option's name; "" for a valid one.
    """

    problem: Callable[[Any], str]


@dataclass(frozen=True)
class Arg:
    """How a field appears on a command line.

    Attributes:
        metavar: what stands for its value in the help; by default its type or its choices.
        positional: whether its value comes without a name.
        negatable: whether ``--no-NAME`` turns a switch off.
        repeatable: whether each use of the option adds one value, or one tuple of values.
    """

    metavar: str = ""
    positional: bool = False
    negatable: bool = True
    repeatable: bool = False


def never(value: float, reason: str) -> Rule:
    """A rule that refuses one value: ``never(0, "leaves no time to explore: expected more")``."""
    return Rule(lambda given: f"{value} {reason}" if given == value else "")


# The default of an option that may be None says nothing about the type of its numbers.
WHOLE = Rule(lambda given: "" if type(given) is int else f"{given} must be a whole number")


def registered_encoders() -> list[str]:
    """Names in the decorators of the encoders' files, sorted: to read them needs no torch."""
    files = (Path(__file__).parents[1] / "encoders").glob("*.py")
    source = "\n".join(file.read_text(encoding="utf-8") for file in files)
    return sorted(re.findall(r'^@register_encoder\("(\w+)"\)', source, re.MULTILINE))


def _unknown_encoder(name: str) -> str:
    from rlcnn.encoders import why_unknown

    reason = why_unknown(name)
    return f'"{name}" is unknown: {reason}' if reason else ""


def whole_number(text: str) -> int:
    """The whole number that is written as ``2000000``, ``2_000_000`` or ``2e6``.

    Raises:
        ValueError: it is none, such as ``1.5``.
    """
    try:
        return int(text)
    except ValueError:
        value = float(text) if re.fullmatch(r"[+-]?[\d_.]+e\+?\d+", text, re.IGNORECASE) else 0.5
        if not (value.is_integer() and abs(value) < 2**53):
            raise
        return int(value)


def named_value(text: str) -> OptionValue:
    """The value of a NAME VALUE pair: a number, true, false or None where the text is one."""
    for kind in (whole_number, float):
        with suppress(ValueError):
            return kind(text)
    if text == "None":
        return None
    return {"true": True, "false": False}.get(text.lower(), text)


def named_values(texts: list[str]) -> dict[str, OptionValue]:
    """Values by name from ``NAME VALUE NAME VALUE ...``."""
    pairs = zip(texts[::2], texts[1::2], strict=True)
    return {name: named_value(value) for name, value in pairs}


MAX_SEED = 2**31 - 1
MAX_COUNT = 2**31 - 1
_SMALLEST, _LARGEST = 1e-37, 1e38  # in size, of what float32 holds
MAX_THREADS = 1024
MAX_SIDE = 4096  # of images, in pixels
# Nothing learns for longer, and emulators or torch fail in ways of their own beyond the others.
MAX_STEPS = 10**12
MAX_ENVS = 4096

Count = Annotated[int, Interval(ge=1, le=MAX_COUNT)]
Period = Annotated[int, Interval(ge=0, le=MAX_STEPS)]
SeedNumber = Annotated[int, Interval(ge=0, le=MAX_SEED)]
Fraction = Annotated[float, Interval(ge=0, le=1)]
NonNegative = Annotated[float, Interval(ge=0)]
Switch = Literal["auto", "on", "off"]
# Given or not; there is no --no-NAME.
Flag = Annotated[bool, Arg(negatable=False)]
EncoderName = Annotated[
    str,
    Arg(metavar=f"{{{','.join([*registered_encoders(), 'NETWORK[:NODE]'])}}}"),
    Rule(_unknown_encoder),
]
NamedValues = dict[str, OptionValue]
EncoderOptions = NamedValues
ObsSize = Annotated[int, Interval(ge=1, le=1024)]
FrameStack = Annotated[int, Interval(ge=1, le=64)]
Threads = Annotated[int, Interval(ge=0, le=MAX_THREADS)]
KeepCheckpoints = Annotated[int, Interval(ge=1, le=10**6)]


def check_options(config: Any, section: str = "") -> None:
    """Checks every field of a dataclass by its annotation; fields that are sections are skipped.

    Args:
        config: the dataclass.
        section: the section that ``config`` is of a larger one, such as "ppo"; for messages.

    Raises:
        UserError: a value is not valid; the line names it and what is expected.
    """
    prefix = f"{section}." if section else ""
    for name, hint in get_type_hints(type(config), include_extras=True).items():
        check_value(prefix + name, getattr(config, name), hint)


def check_value(name: str, value: Any, hint: Any) -> None:
    """Checks one value by its annotation; None is always valid.

    Raises:
        UserError: it is not valid.
    """
    kind, *marks = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    if value is None or isinstance(hint, str):
        return
    if get_origin(kind) is tuple:
        for element in value:
            check_value(name, element, get_args(kind)[0])
    problems = [_unknown(value, get_args(kind)) if get_origin(kind) is Literal else ""]
    problems += [_outside(value, mark) for mark in marks if isinstance(mark, Interval)]
    problems += [mark.problem(value) for mark in marks if isinstance(mark, Rule)]
    if isinstance(value, float) or kind is float:
        problems.append(_beyond_float32(value))
    for problem in filter(None, problems):
        raise UserError(f"{option_name(name)} {problem}")


def _unknown(value: str, choices: Iterable[str]) -> str:
    if value in choices:
        return ""
    expected = ", ".join(choices)
    return f'"{value}" is unknown: expected one of {expected}.{nearest(str(value), choices)}'


def _outside(value: Any, interval: Interval) -> str:
    bounds: list[tuple[str, Any, Callable[[Any, Any], bool]]] = [
        ("more than", interval.gt, operator.gt),
        ("at least", interval.ge, operator.ge),
        ("at most", interval.le, operator.le),
        ("below", interval.lt, operator.lt),
    ]
    bounds = [bound for bound in bounds if bound[1] is not None]
    # Whole numbers are finite, also those that no float holds.
    infinite = isinstance(value, float) and math.isinf(value)
    if not infinite and all(holds(value, limit) for _, limit, holds in bounds):
        return ""
    limits = ["finite"] * infinite + [f"{words} {limit}" for words, limit, _ in bounds]
    return f"{value} must be {' and '.join(limits)}"


def _beyond_float32(value: float) -> str:
    # Networks and losses compute with it in float32.
    if value == 0 or _SMALLEST <= abs(value) <= _LARGEST:
        return ""
    expected = f"0 or from {_SMALLEST:g} to {_LARGEST:g}, positive or negative"
    return f"{value} is not usable: expected {expected}"


def option_name(name: str) -> str:
    """The option of a field: ``num_envs`` -> ``--num-envs``."""
    return "--" + name.replace("_", "-")


def fields_of(cls: type[Any], source: Any) -> dict[str, Any]:
    """The values in ``source`` of every field of ``cls``, one of its bases or its own class."""
    return {field.name: getattr(source, field.name) for field in dataclasses.fields(cls)}


def from_json(cls: type[Config], values: Any, prefix: str = "") -> Config:
    """An instance of a dataclass out of a JSON object; what is missing takes its default.

    ``~`` is expanded where a path begins, as on a command line.

    Args:
        cls: a dataclass whose fields all have defaults; those that are dataclasses are read
            likewise.
        values: the object.
        prefix: what the options' names begin with in messages, such as "ppo.".

    Raises:
        UserError: an option is unknown or of the wrong type.
    """
    if not isinstance(values, dict):
        raise UserError(f"the configuration's {prefix.rstrip('.')} must be an object of options")
    defaults = cls()
    known = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    for name in values:
        if name not in known:
            raise UserError(
                f'unknown option "{prefix}{name}" in the configuration.{nearest(name, known)}'
            )
    return cls(
        **{
            name: _from_json(prefix + name, value, getattr(defaults, name))
            for name, value in values.items()
        }
    )


def _from_json(option: str, value: Any, default: Any) -> Any:
    """A value of the default's type; an option whose default is None takes numbers."""
    if dataclasses.is_dataclass(default) and not isinstance(default, type):
        return from_json(type(default), value, f"{option}.")
    if isinstance(default, tuple) and isinstance(value, list):
        # One that is empty by default takes names.
        kind = type(default[0]) if default else str
        for element in value:
            if type(element) not in ({kind, int} if kind is float else {kind}):
                raise UserError(
                    f"option {option} in the configuration must be a list of {kind.__name__},"
                    f" not with {element!r}"
                )
        return tuple(expand_home(e) if isinstance(e, str) else e for e in value)
    kinds: dict[type, tuple[type, ...]] = {
        float: (float, int),
        type(None): (type(None), int, float),
    }
    if type(value) not in kinds.get(type(default), (type(default),)):
        expected = "a number or null" if default is None else type(default).__name__
        raise UserError(f"option {option} in the configuration must be {expected}, not {value!r}")
    return expand_home(value) if isinstance(value, str) else value


def expand_home(value: str) -> str:
    """Replaces ``~`` and ``~user`` wherever a path begins in a value.

    A shell does so only at the beginning of an argument, and nothing does in JSON.
    """
    return _HOME.sub(lambda found: os.path.expanduser(found[0]), value)
