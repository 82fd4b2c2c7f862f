"""Which pixels of the image a value of a network's feature maps depends on.

A value at (row, column) depends on a rectangle of pixels, its receptive field: see Araujo et al.
2019, "Computing receptive fields of convolutional neural networks". Here torch itself says what a
network computes: the operations of a pass over a tensor without values, one after the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

_ATEN = torch.ops.aten
_POOLS = (_ATEN.max_pool2d_with_indices, _ATEN.max_pool2d, _ATEN.avg_pool2d)
# They mix values of all positions though the size of the maps stays.
_MIXING = (
    *(_ATEN.mm, _ATEN.bmm, _ATEN.addmm, _ATEN.baddbmm, _ATEN.t),
    _ATEN.native_group_norm,
)


class Window(NamedTuple):
    """Pixels along one axis: value ``i`` depends on ``size`` of them from ``start + i * step``."""

    size: int = 1
    step: int = 1
    start: int = 0

    def through(self, kernel: int, stride: int, padding: int, dilation: int = 1) -> Window:
        """The window after a convolution or pooling along this axis."""
        return Window(
            self.size + dilation * (kernel - 1) * self.step,
            self.step * stride,
            self.start - padding * self.step,
        )

    def joined(self, other: Window) -> Window:
        """The smallest window that holds both; their steps are equal."""
        start = min(self.start, other.start)
        end = max(self.start + self.size, other.start + other.size)
        return Window(end - start, self.step, start)


class ReceptiveField(NamedTuple):
    """The windows of a value of feature maps along the rows and the columns of the image."""

    rows: Window = Window()
    columns: Window = Window()

    def box(self, row: int, column: int) -> tuple[int, int, int, int]:
        """Top, left, height and width in pixels; the box may reach beyond the image."""
        top = self.rows.start + row * self.rows.step
        left = self.columns.start + column * self.columns.step
        return top, left, self.rows.size, self.columns.size

    def __str__(self) -> str:
        return f"{self.rows.size}x{self.columns.size} pixels"


class _Followed(NamedTuple):
    """The field of a tensor's values, and its dimensions that are the rows and the columns."""

    field: ReceptiveField
    axes: tuple[int, int]


class FieldTracer(TorchDispatchMode):
    """Follows the receptive fields of the tensors that are computed from :meth:`begin`'s."""

    def __init__(self) -> None:
        super().__init__()
        # None where a value may depend on the whole image.
        self._followed = WeakTensorKeyDictionary()

    def begin(self, images: torch.Tensor, block: int = 1) -> None:
        """Starts at (batch, channels, height, width), whose pixels are blocks of the image."""
        window = Window(block, block)
        self._followed[images] = _Followed(ReceptiveField(window, window), (2, 3))

    def field(self, tensor: torch.Tensor) -> ReceptiveField | None:
        """The receptive field of a value; None if it may depend on the whole image."""
        followed = self._followed.get(tensor)
        return followed.field if followed else None

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> torch.Tensor:
        outputs = func(*args, **(kwargs or {}))
        given = {a.name: a.default_value for a in func._schema.arguments if a.has_default_value()}
        names = [argument.name for argument in func._schema.arguments]
        given |= {**dict(zip(names, args, strict=False)), **(kwargs or {})}
        inputs = [
            tensor
            for tensor in tree_leaves((args, kwargs))
            if isinstance(tensor, torch.Tensor) and tensor in self._followed
        ]
        if inputs:
            for output in tree_leaves(outputs):
                if isinstance(output, torch.Tensor):
                    followed = self._after(func.overloadpacket, given, inputs, output)
                    self._followed[output] = followed
        return outputs

    def _after(
        self,
        operation: Any,
        given: Mapping[str, Any],
        inputs: Sequence[torch.Tensor],
        output: torch.Tensor,
    ) -> _Followed | None:
        """What follows from an operation: ``given`` are its arguments by name."""
        before = [self._followed[tensor] for tensor in inputs]
        if None in before or operation in _MIXING:
            return None
        (field, axes), dimensions = before[0], inputs[0].ndim
        if operation in (_ATEN.permute, _ATEN.transpose):
            order = _order(operation, given, dimensions)
            return _Followed(field, (order.index(axes[0]), order.index(axes[1])))
        last = axes == (dimensions - 2, dimensions - 1)
        if operation is _ATEN.convolution or operation in _POOLS:
            if given.get("transposed") or not last:
                return None
            weight = given.get("weight")
            kernel = given["kernel_size"] if weight is None else weight.shape[2:]
            settings = (given["stride"] or kernel, given["padding"], given.get("dilation", 1))
            return _Followed(_through(field, kernel, *settings), axes)
        if operation is _ATEN.constant_pad_nd and last:
            pad = [*given["pad"], 0, 0]
            return _Followed(_through(field, 1, 1, (pad[2], pad[0]), 1), axes)
        if operation is _ATEN.slice and given["dim"] % dimensions in axes:
            cut = [(1, 0), (1, 0)]
            cut[axes.index(given["dim"] % dimensions)] = given["step"], -(given["start"] or 0)
            return _Followed(_through(field, 1, *zip(*cut, strict=True), 1), axes)
        if operation is _ATEN.native_layer_norm:
            least = dimensions - len(given["normalized_shape"])
            return None if max(axes) >= least else before[0]
        if last:
            # A view may split or join the channels.
            axes = (output.ndim - 2, output.ndim - 1)
        for tensor, other in zip(inputs, before, strict=True):
            sizes = [tensor.shape[axis] for axis in other.axes]
            steps = (other.field.rows.step, other.field.columns.step)
            kept = output.ndim > max(axes) and sizes == [output.shape[axis] for axis in axes]
            if min(axes) < 0 or not kept or steps != (field.rows.step, field.columns.step):
                return None
            pairs = zip(field, other.field, strict=True)
            field = ReceptiveField(*(one.joined(two) for one, two in pairs))
        return _Followed(field, axes)


def _order(operation: Any, given: Mapping[str, Any], dimensions: int) -> list[int]:
    """The former dimension of each."""
    if operation is _ATEN.permute:
        return [dim % dimensions for dim in given["dims"]]
    order = list(range(dimensions))
    one, two = given["dim0"] % dimensions, given["dim1"] % dimensions
    order[one], order[two] = two, one
    return order


def _through(field: ReceptiveField, *settings: Any) -> ReceptiveField:
    """Settings are numbers, or one or two for rows and columns."""
    rows, columns = zip(*map(_pair, settings), strict=True)
    return ReceptiveField(field.rows.through(*rows), field.columns.through(*columns))


def _pair(value: Any) -> tuple[int, int]:
    values = list(value) if isinstance(value, Sequence) else [value]
    return values[0], values[-1]
