"""What CUDA does with a graph, done with tensors of the host."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

R = TypeVar("R")
aten = torch.ops.aten

# What on a GPU waits for it, since Python or a tensor's shape depends on what was computed.
WAITS = {
    aten._local_scalar_dense.default,
    aten.is_nonzero.default,
    aten.equal.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten.repeat_interleave.Tensor,
}


class Tape(TorchDispatchMode):
    """Notes every operation with its very tensors, and refuses what waits for the device.

    Plain numbers are noted as they are, as a graph does.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []
        self._before: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in WAITS:
            raise RuntimeError(f"{func} would wait for the device")
        for argument, value in zip(func._schema.arguments, args, strict=False):
            self._save(argument, value)
        for argument in func._schema.arguments:
            self._save(argument, kwargs.get(argument.name))
        result = func(*args, **kwargs)
        self.operations.append((func, args, kwargs, result))
        return result

    def _save(self, argument: Any, value: Any) -> None:
        if argument.alias_info is not None and argument.alias_info.is_write:
            for tensor in tensors_in(value):
                storage = tensor.untyped_storage()
                self._before.setdefault(storage.data_ptr(), (storage, storage.clone()))

    def undo(self) -> None:
        """Takes back everything, as if nothing had been computed."""
        for storage, before in self._before.values():
            storage.copy_(before)

    @torch.no_grad()
    def replay(self) -> None:
        """Runs it all once more, each result into the memory where it was."""
        for func, args, kwargs, result in self.operations:
            again = func(*args, **kwargs)
            for place, value in zip(tensors_in(result), tensors_in(again), strict=True):
                if place.untyped_storage().data_ptr() != value.untyped_storage().data_ptr():
                    place.detach().copy_(value)


class TapeRecorder:
    """A :class:`~agents.graphs.Recorder` of what the host computes.

    Attributes:
        warm_ups, captures, replays: how often.
    """

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.warm_ups = self.captures = self.replays = 0

    def warm_up(self, function: Callable[[], R]) -> R:
        self.warm_ups += 1
        return function()

    def capture(
        self, function: Callable[[], R], generators: Iterable[torch.Generator]
    ) -> tuple[Callable[[], object], R]:
        sources = [torch.default_generator, *generators]
        states = [generator.get_state() for generator in sources]
        tape = Tape()
        with tape:
            result = function()
        tape.undo()
        for generator, state in zip(sources, states, strict=True):
            generator.set_state(state)
        self.captures += 1

        def replay() -> None:
            self.replays += 1
            tape.replay()

        return replay, result


def tensors_in(value: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor)]
