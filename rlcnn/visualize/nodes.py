"""The layers of an encoder: their names, shapes, receptive fields and feature maps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from envs.errors import UserError, nearest
from rlcnn.encoders import Encoder, FrameEncoder
from rlcnn.visualize.receptive_field import FieldTracer, ReceptiveField

_MOST_NAMED = 6


@dataclass(frozen=True)
class Layer:
    """A module of a trunk.

    Attributes:
        name: its name in the network, such as ``features.3``; of the trunk's output "output".
        module: the module.
        shape: of its output for one image: (channels, height, width) for feature maps.
        field: the receptive field of a value; None if that may be the whole image.
    """

    name: str
    module: nn.Module
    shape: tuple[int, ...]
    field: ReceptiveField | None

    @property
    def has_maps(self) -> bool:
        """Whether its output is feature maps of more than one position."""
        return len(self.shape) == 3 and self.shape[1] * self.shape[2] > 1


OUTPUT = "output"


def list_layers(encoder: Encoder) -> dict[str, Layer]:
    """The modules of an encoder's trunk by name, in the order of computation.

    Of a module that runs several times it is the last run. Nothing is computed: the tensors have
    shapes alone.
    """
    root, preprocessing = encoder.trunk, encoder.preprocessing
    named = (*root.named_parameters(), *root.named_buffers())
    tensors = {name: tensor.detach().to("meta") for name, tensor in named}
    # BatchNorm may refuse a single image.
    images = torch.zeros((2, *preprocessing.output_shape), device="meta")
    layers: dict[str, Layer] = {}
    tracer = FieldTracer()

    def note(name: str, module: nn.Module, output: object) -> None:
        if isinstance(output, torch.Tensor):
            layers.pop(name, None)
            layers[name] = Layer(name, module, tuple(output.shape[1:]), tracer.field(output))

    modules = {_own_name(name): module for name, module in root.named_modules() if _own_name(name)}
    with hooked(modules, note), torch.no_grad(), tracer:
        tracer.begin(images, preprocessing.block)
        output = torch.func.functional_call(root, tensors, images)
    note(OUTPUT, root, output)
    return layers


def _own_name(name: str) -> str:
    # A backbone's modules have the names of its network.
    return "" if name == "network" else name.removeprefix("network.")


@contextmanager
def hooked(
    modules: dict[str, nn.Module], note: Callable[[str, nn.Module, object], None]
) -> Iterator[None]:
    """Calls ``note`` with the name, the module and its output whenever one of them runs."""
    handles = [
        module.register_forward_hook(lambda own, _, output, name=name: note(name, own, output))
        for name, module in modules.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def find_layer(encoder: Encoder, name: str, layers: Mapping[str, Layer] | None = None) -> Layer:
    """The layer of this name, of ``layers`` or all, which has feature maps.

    Raises:
        UserError: there is none, or it has no maps or maps of 1x1; the message names others.
    """
    layers = layers or list_layers(encoder)
    fitting = {key: layer for key, layer in layers.items() if layer.has_maps}
    name = name.removeprefix("trunk.").removeprefix("network.")
    if name not in layers:
        known = nearest(name, layers) or f" It has {_some(list(fitting))}"
        raise UserError(f'encoder "{encoder.name}" has no layer "{name}".{known}')
    layer = layers[name]
    if name not in fitting:
        what = "maps of 1x1 pixels" if len(layer.shape) == 3 else "values without positions"
        raise UserError(
            f'layer "{name}" of encoder "{encoder.name}" has {what}, not feature maps: expected one'
            f" such as {_some(list(fitting))}"
        )
    return layer


def _some(names: Sequence[str]) -> str:
    if len(names) > _MOST_NAMED:
        places = [round(i * (len(names) - 1) / (_MOST_NAMED - 1)) for i in range(_MOST_NAMED)]
        return ", ".join(names[place] for place in places) + " ..."
    return ", ".join(names) or "no layer of another encoder"


def layer_outputs(
    encoder: Encoder, layers: Sequence[Layer], images: torch.Tensor
) -> dict[str, torch.Tensor]:
    """The outputs of layers by name for preprocessed images, (batch, *shape) each.

    Gradients flow through them. ``images`` are a result of :func:`prepared`.
    """
    found: dict[str, torch.Tensor] = {}

    def note(name: str, _: nn.Module, output: object) -> None:
        # A copy: the next layer may work in place.
        found[name] = output.clone()  # type: ignore[attr-defined]

    with hooked({layer.name: layer.module for layer in layers}, note):
        encoder.trunk(images)
    return found


def newest_frames(encoder: Encoder, observations: torch.Tensor) -> torch.Tensor:
    """What the trunk gets one of: (batch, channels, height, width), uint8 in and out.

    Encoders that encode each frame of a stack alone get the newest; others get the whole stack.
    """
    if isinstance(encoder, FrameEncoder):
        return observations[:, -encoder.frame_shape[0] :]
    return observations


def prepared(encoder: Encoder, observations: torch.Tensor) -> torch.Tensor:
    """The trunk's input of :func:`newest_frames`."""
    return encoder.preprocessing(newest_frames(encoder, observations))


def as_prepared(encoder: Encoder, observations: torch.Tensor) -> torch.Tensor:
    """:func:`newest_frames` at the size of the trunk's image, uint8: boxes of fields lie in it."""
    frames = newest_frames(encoder, observations)
    size = encoder.preprocessing.resize
    if size is None:
        return frames
    resized = F.interpolate(frames.float(), size, mode="bilinear", antialias=True)
    return resized.round().clamp(0, 255).to(torch.uint8)
