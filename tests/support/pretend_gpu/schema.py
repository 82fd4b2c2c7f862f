"""What an operation's schema says of it, and which operations wait for the device."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial
from types import SimpleNamespace
from typing import Any

import torch

aten = torch.ops.aten

# On a GPU the host waits for these, since Python or a tensor's shape depends on the result.
WAITS = {
    aten._local_scalar_dense,
    aten.is_nonzero,
    aten.equal,
    aten.nonzero,
    aten.masked_select,
    aten.repeat_interleave,
    aten._unique2,
    aten.unique_dim,
    aten.unique_consecutive,
    aten.bincount,
}
INDEXING = {aten.index, aten._unsafe_index, aten.index_put, aten.index_put_, aten._index_put_impl_}


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """All tensors in nested lists, tuples and dictionaries."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, dict):
        yield from tensors_in(list(value.values()))


class Traits(SimpleNamespace):
    """What an operation does.

    Attributes:
        creates: it takes a device.
        draws: it draws random numbers.
        copies: it is ``copy_``.
        views: its results are views.
        written: functions of its arguments that give those it writes to.
    """


@cache
def traits(func: Any) -> Traits:
    """Traits of an operation."""
    schema = func._schema
    written = [
        partial(_argument, position, argument.name)
        for position, argument in enumerate(schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    ]
    return Traits(
        creates=any(argument.name == "device" for argument in schema.arguments),
        draws=torch.Tag.nondeterministic_seeded in func.tags,
        copies=func is aten.copy_.default,
        views=not written and any(r.alias_info is not None for r in schema.returns),
        written=written,
    )


def _argument(position: int, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return args[position] if position < len(args) else kwargs.get(name)
