"""Options as fields of dataclasses: read from JSON and checked, a line for each thing wrong."""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Iterable
from typing import Annotated, Any

import tyro

from envs.errors import UserError, nearest
from rlcnn.encoders import list_encoders

# Not known before encoders are registered; --help shows them as it does those of a Literal.
_ENCODER_NAMES = ",".join([*list_encoders(), "NETWORK[:NODE]"])
# Where a path may begin within a value: ~/x, --run-dir=~/x, folder:~/x, frozen:NET@~/x, a,~/x.
_HOME = re.compile(r"(?:^|(?<=[=:@,]))~[^/=:@,]*(?=/|$)")

EncoderName = Annotated[str, tyro.conf.arg(metavar=f"{{{_ENCODER_NAMES}}}")]


def dataclass_of(cls: type[Any], values: Any, prefix: str = "") -> Any:
    """An instance of a dataclass out of a JSON object; what is missing takes its default.

    ``~`` is expanded where a path begins, as on a command line.

    Args:
        cls: a dataclass that can be made without arguments. What holds another dataclass must
            have been made into one already.
        values: the object.
        prefix: what the options' names begin with in messages, such as "ppo.".

    Raises:
        UserError: an option is unknown or of the wrong type.
    """
    known = {f.name: f for f in dataclasses.fields(cls)}
    if not isinstance(values, dict):
        raise UserError(f"the configuration's {prefix.rstrip('.')} must be an object of options")
    for name, value in values.items():
        if name not in known:
            raise UserError(
                f'unknown option "{prefix}{name}" in the configuration.{nearest(name, known)}'
            )
        default = getattr(cls(), name)
        if dataclasses.is_dataclass(default):
            continue
        # What may be None is a number otherwise.
        kinds = {
            type(default),
            *((int,) if isinstance(default, float) else ()),
            *((int, float) if default is None else ()),
        }
        if isinstance(default, tuple) and isinstance(value, list):
            _check_elements(prefix + name, value, default)
            elements = (expand_home(e) if isinstance(e, str) else e for e in value)
            values = {**values, name: tuple(elements)}
        elif type(value) not in kinds:
            expected = "a number or null" if default is None else type(default).__name__
            raise UserError(
                f"option {prefix}{name} in the configuration must be {expected}, not {value!r}"
            )
        elif isinstance(value, str):
            values = {**values, name: expand_home(value)}
    return cls(**values)


def expand_home(value: str) -> str:
    """Replaces ``~`` and ``~user`` wherever a path begins in a value.

    A shell does so only at the beginning of an argument, and nothing does in JSON.
    """
    return _HOME.sub(lambda found: os.path.expanduser(found[0]), value)


def _check_elements(option: str, values: list[Any], default: tuple[Any, ...]) -> None:
    """Refuses a list with an element of another type than those of the default."""
    # One that is empty by default takes names.
    kind = type(default[0]) if default else str
    kinds = {kind, int} if kind is float else {kind}
    for value in values:
        if type(value) not in kinds:
            expected = kind.__name__
            raise UserError(
                f"option {option} in the configuration must be a list of {expected}, not with"
                f" {value!r}"
            )


def option_name(name: str) -> str:
    """The option of a field: ``num_envs`` -> ``--num-envs``."""
    return "--" + name.replace("_", "-")


def check_choice(name: str, value: str, choices: Iterable[str]) -> None:
    """Refuses a value that is none of ``choices``.

    Raises:
        UserError: it is none of them; the nearest is named.
    """
    if value not in choices:
        raise UserError(
            f'{option_name(name)} "{value}" is unknown: expected one of'
            f" {', '.join(choices)}.{nearest(str(value), choices)}"
        )


def check_range(name: str, value: float, least: float, most: float = math.inf) -> None:
    """Refuses a number outside [least, most], and one that is not finite.

    Raises:
        UserError: it lies outside.
    """
    # Whole numbers are finite, also those too large to be asked.
    infinite = isinstance(value, float) and math.isinf(value)
    if infinite or not least <= value <= most:
        upper = "" if most == math.inf else f" and at most {most}"
        finite = "finite and " if infinite else ""
        raise UserError(f"{option_name(name)} {value} must be {finite}at least {least}{upper}")
