"""The layers of an encoder as a table: shapes, parameters and multiply-accumulates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from rlcnn.encoders.architectures import find_architecture
from rlcnn.encoders.backbones import split_name
from rlcnn.encoders.base import Encoder, call_on_meta
from rlcnn.encoders.preprocessing import Preprocessing
from rlcnn.encoders.registry import create_encoder, encoder_options

# The counter counts a multiply-accumulate as two operations, here for two observations.
_OPERATIONS = 4


@dataclass(frozen=True)
class Layer:
    """One use of a layer.

    Attributes:
        name: the module's, as in ``encoder.nodes()``.
        kind: what it computes, in a few words.
        output_shape: without the batch; of one frame, where a network encodes each frame alone.
        parameters: their number; 0 for a layer that was used before.
        macs: multiply-accumulates of convolutions, linear layers and attention for one observation.
    """

    name: str
    kind: str
    output_shape: tuple[int, ...]
    parameters: int
    macs: int


def layer_table(encoder: Encoder) -> list[Layer]:
    """The layers of an encoder in the order of their use, without computing any of them.

    Layers that have no parameters and do not change the shape, such as ReLU and dropout, are left
    out. The others' figures add up to those of ``num_parameters`` and ``macs``.
    """
    counter = FlopCounterMode(display=False)
    layers: list[Layer] = []
    uncounted = {name: parameter.numel() for name, parameter in encoder.named_parameters()}
    # Of the modules that are computed at present: operations before each, and within its parts.
    before: list[int] = []
    in_parts: list[int] = [0]

    def enter(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        before.append(counter.get_total_flops())
        in_parts.append(0)

    def leave(name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        operations = counter.get_total_flops() - before.pop()
        own = operations - in_parts.pop()
        in_parts[-1] += operations
        # Parts that were computed have been counted; attention uses its own without computing them.
        new = [each for each in uncounted if each.startswith(f"{name}." if name else "")]
        parameters = sum(uncounted.pop(each) for each in new)
        shape = _shape(output)
        reshapes = not list(module.children()) and inputs and _shape(inputs[0]) != shape
        if isinstance(module, Preprocessing):
            return
        if parameters or own or reshapes:
            node = name.removeprefix(f"{encoder.nodes_of}.")
            layers.append(Layer(node, _kind(module), shape, parameters, own // _OPERATIONS))

    with ExitStack() as hooks, counter:
        for name, module in encoder.named_modules():
            hooks.callback(module.register_forward_pre_hook(enter).remove)
            hooks.callback(module.register_forward_hook(partial(leave, name)).remove)
        call_on_meta(encoder, encoder.observation_shape, torch.uint8)
    return layers


def _shape(value: Any) -> tuple[int, ...]:
    if isinstance(value, tuple):
        value = value[0]
    return tuple(value.shape[1:]) if isinstance(value, torch.Tensor) else ()


def _kind(module: nn.Module) -> str:
    """Such as ``Conv2d 11x11, stride 4, padding 2``."""
    # Subclasses compute the same in another way.
    words = "Conv2d" if isinstance(module, nn.Conv2d) else type(module).__name__
    if not isinstance(module, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
        return words
    height, width = _pair(module.kernel_size)
    words += f" {height}x{width}"
    # By default a pooling moves by its own size, and a convolution by one pixel.
    usual = (1, 1) if isinstance(module, nn.Conv2d) else (height, width)
    for name, default in (("stride", usual), ("padding", (0, 0))):
        value = getattr(module, name)
        if _pair(value) != default:
            first, second = _pair(value)
            words += f", {name} {first if first == second else f'{first}x{second}'}"
    if isinstance(module, nn.Conv2d) and module.groups > 1:
        words += f", {module.groups} groups"
    return words


def _pair(value: Any) -> tuple[Any, Any]:
    return (value[0], value[1]) if isinstance(value, tuple) else (value, value)


def describe_encoder(
    name: str, options: Mapping[str, Any], shape: Sequence[int] = (), classes: int = 0
) -> list[str]:
    """The table of a new encoder as lines of Markdown, with the totals.

    Args:
        name: as for :func:`rlcnn.encoders.create_encoder`.
        options: its options; a network for RGB images has no projection by default.
        shape: (channels, height, width); by default those of a published network's images, or of
            an agent's observations.
        classes: of a linear layer behind the encoder; 0 for none.

    Raises:
        UserError: as for ``create_encoder``.
    """
    chosen = dict(options)
    if "projection" in encoder_options(name):
        chosen.setdefault("projection", "none")
    if not shape:
        architecture = find_architecture(split_name(name)[0])
        shape = (3, architecture.crop, architecture.crop) if architecture else (4, 84, 84)
    # Only shapes are needed, and the weights of large networks take seconds to draw.
    with torch.device("meta"):
        encoder = create_encoder(name, shape, **chosen)
    layers = layer_table(encoder)
    if classes:
        size = encoder.features_dim
        layers.append(Layer("head", "Linear", (classes,), (size + 1) * classes, size * classes))
    rows: list[tuple[str, ...]] = [("layer", "kind", "output", "parameters", "MACs")]
    rows.append(("input", "", _sides(encoder.observation_shape), "", ""))
    for one in layers:
        figures = (f"{one.parameters:,}", f"{one.macs:,}")
        rows.append((one.name, one.kind, _sides(one.output_shape), *figures))
    totals = [sum(one.parameters for one in layers), sum(one.macs for one in layers)]
    rows.append(("total", "", "", *(f"{total:,}" for total in totals)))
    return _markdown(rows)


def _markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    """A table whose first row is its head, and whose last two columns are numbers."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    numbers = len(widths) - 2
    lines = []
    for row in rows:
        cells = enumerate(zip(row, widths, strict=True))
        texts = [t.rjust(w) if place >= numbers else t.ljust(w) for place, (t, w) in cells]
        lines.append(f"| {' | '.join(texts)} |")
    ends = [":" if place >= numbers else "-" for place in range(len(widths))]
    rule = "|".join("-" * (w + 1) + end for w, end in zip(widths, ends, strict=True))
    return [lines[0], f"|{rule}|", *lines[1:]]


def _sides(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
