"""The options of a dataclass: names, types, defaults, and help from its fields' docstrings.

A field is an option; a field that is a dataclass is a section, ``--ppo.gamma``. Options are grouped
by the class that declares them first: the first line of its docstring heads the group.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import math
import textwrap
import types
from collections.abc import Callable
from dataclasses import MISSING, dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from rlcnn.config.fields import Arg, named_values, option_name, whole_number

# What stands for a value in the help, and what makes it from its text.
_KINDS: dict[Any, tuple[str, Callable[[str], Any]]] = {
    bool: ("", bool),
    int: ("INT", whole_number),
    float: ("FLOAT", float),
    str: ("TEXT", str),
    Path: ("PATH", Path),
}


@dataclass(frozen=True)
class Option:
    """An option, or a positional argument.

    Attributes:
        name: ``--ppo.gamma``; of a positional argument its name in the help.
        field: ``ppo.gamma``.
        kind: the type of its value, or of each of its values.
        takes: how many values: 0, 1 or infinity.
        optional: whether its value may be None.
        default: its default; MISSING where it must be given.
        arg: how it appears on a command line.
        holder: the dataclass whose field it is.
        may_be_empty: whether an empty text is its field's default.
    """

    name: str
    field: str
    kind: Any
    takes: float
    optional: bool
    default: Any
    arg: Arg
    holder: type[Any]
    may_be_empty: bool

    @property
    def names(self) -> list[str]:
        """All its names on a command line; the second turns a switch off."""
        if self.kind is not bool or not self.arg.negatable:
            return [self.name]
        section, dot, last = self.field.rpartition(".")
        return [self.name, option_name(f"{section}{dot}no-{last}")]

    @property
    def choices(self) -> list[str]:
        """The values that it takes; none where they are not a fixed set."""
        return [str(one) for one in get_args(self.kind)] if get_origin(self.kind) is Literal else []

    @property
    def metavar(self) -> str:
        """What stands for its values in the help."""
        if get_origin(self.kind) is dict:
            return "NAME VALUE ..."
        one = f"{{{','.join(self.choices)}}}" if self.choices else _KINDS[self.kind][0]
        metavar = self.arg.metavar or one
        return f"{metavar} ..." if self.takes > 1 and not self.arg.positional else metavar

    @property
    def group(self) -> type[Any]:
        """The class that heads its group: a section's own, or the first that declares the field."""
        if "." in self.field:
            return self.holder
        bases = reversed(self.holder.__mro__)
        return next(base for base in bases if self.field in inspect.get_annotations(base))

    @property
    def help(self) -> str:
        """The docstring of its field, where it was declared last."""
        name = self.field.split(".")[-1]
        docs = map(_docstrings, self.holder.__mro__)
        return next((texts[name] for texts in docs if name in texts), "")

    def convert(self, texts: list[str], name: str) -> Any:
        """The value that a command line gives after ``name``, one of the option's names."""
        if self.kind is bool:
            return name == self.name
        if get_origin(self.kind) is dict:
            return named_values(texts)
        values = tuple(map(self.convert_one, texts))
        return values if self.takes > 1 or self.arg.repeatable else values[0]

    def convert_one(self, text: str) -> Any:
        """One of the values that :meth:`convert` returns.

        Raises:
            KeyError: it is none of the choices.
            ValueError: it is not of the option's type.
        """
        if self.optional and text == "None":
            return None
        if self.choices:
            return {str(choice): choice for choice in get_args(self.kind)}[text]
        # Those of a dictionary are read in pairs.
        return _KINDS.get(self.kind, _KINDS[str])[1](text)


def list_options(cls: type[Any], default: Any = None, section: str = "") -> list[Option]:
    """The options of a dataclass, in the order of its fields; sections come last.

    Args:
        cls: the dataclass.
        default: an instance with the defaults; None takes the fields' own.
        section: what the names begin with: ``ppo.``.
    """
    hints = get_type_hints(cls, include_extras=True)
    found: list[Option] = []
    sections: list[Option] = []
    for field in dataclasses.fields(cls):
        kind, *marks = unwrap(hints[field.name])
        arg = next((mark for mark in marks if isinstance(mark, Arg)), Arg())
        value = own_default(field) if default is None else getattr(default, field.name)
        if dataclasses.is_dataclass(kind):
            sections += list_options(kind, value, f"{section}{field.name}.")  # type: ignore[arg-type]
            continue
        optional = get_origin(kind) in (Union, types.UnionType)
        if optional:
            (kind,) = (part for part in get_args(kind) if part is not type(None))
        takes: float = 0 if kind is bool else 1
        if get_origin(kind) is dict:
            takes = math.inf
        elif get_origin(kind) is tuple:
            kind = unwrap(get_args(kind)[0])[0]
            takes = 1 if arg.repeatable else math.inf
            if get_origin(kind) is tuple:
                # Each use of a repeatable option adds one tuple.
                kind, takes = get_args(kind)[0], math.inf
        name = option_name(section + field.name)
        if arg.positional:
            name = (arg.metavar or field.name.upper()).rstrip(".")
        empty = field.default == ""
        path = section + field.name
        found.append(Option(name, path, kind, takes, optional, value, arg, cls, empty))
    return found + sections


def unwrap(hint: Any) -> tuple[Any, ...]:
    """A type without its annotations, and these."""
    return get_args(hint) if get_origin(hint) is Annotated else (hint,)


def own_default(field: dataclasses.Field[Any]) -> Any:
    """The default that a field declares; MISSING without one."""
    return field.default if field.default_factory is MISSING else field.default_factory()


@cache
def _docstrings(cls: type[Any]) -> dict[str, str]:
    """The texts that stand below a dataclass's own fields."""
    if not dataclasses.is_dataclass(cls):
        return {}
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    texts = {}
    for statements in pairwise(tree.body):  # type: ignore[attr-defined]
        match statements:
            case ast.AnnAssign(ast.Name(name)), ast.Expr(ast.Constant(str(text))):
                texts[name] = " ".join(text.split())
    return texts
