"""The base class of encoders: uint8 observations -> feature vectors."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from functools import partial
from numbers import Integral
from typing import Any, ClassVar, TypedDict

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from envs.errors import UserError, nearest
from rlcnn.encoders.preprocessing import ObservationShape, Preprocessing

SPEC_VERSION = 1


class TooSmallError(UserError):
    """Images are too small for an encoder; ``least`` is the least height and width."""

    def __init__(self, name: str, size: tuple[int, int], least: int) -> None:
        super().__init__(
            f'{size[0]}x{size[1]} pixels are too small for encoder "{name}": '
            f"it needs at least {least}x{least}."
        )
        self.least = least


@contextmanager
def size_option(option: str) -> Iterator[None]:
    """Adds the option of a script that enlarges images to the error for images that are too small.

    The error also gets the least size.
    """
    try:
        yield
    except TooSmallError as error:
        raise UserError(f"{error} Give {option} {error.least}.") from error


class EncoderSpec(TypedDict):
    """Everything that ``create_encoder`` needs to build an encoder again, as JSON values."""

    version: int
    name: str
    observation_shape: list[int]
    options: dict[str, Any]


class Encoder(nn.Module):
    """A convolutional network from uint8 observations to feature vectors.

    Subclasses build ``trunk`` (the convolutions), ``pool`` (feature maps -> one vector) and
    ``projection`` (-> ``features_dim`` features), and pass every constructor option to
    ``super().__init__`` for ``spec()``. All submodules have names, and only ``Preprocessing``
    branches on its input, so ``torchvision.models.feature_extraction.create_feature_extractor`` can
    cut an encoder at any node with ``tracer_kwargs={"leaf_modules": [Preprocessing]}``.
    """

    name: str  # its registered name
    observation_shape: ObservationShape  # (channels, height, width) of the uint8 observations
    options: dict[str, Any]  # of the constructor, JSON values
    features_dim: int  # length of a feature vector
    least_size: ClassVar[int] = 1  # height and width for which the trunk's output is not empty
    # Whether ``features_dim`` 0 leaves out the last, linear layer.
    optional_projection: ClassVar[bool] = False
    nodes_of: ClassVar[str] = ""  # the submodule whose nodes ``nodes`` lists; empty for itself

    preprocessing: Preprocessing
    trunk: nn.Module
    pool: nn.Module
    projection: nn.Module

    def __init__(
        self,
        observation_shape: Sequence[int],
        options: dict[str, Any],
        preprocessing: Preprocessing | None = None,
    ) -> None:
        """Checks the shape (channels, height, width) and stores all options of the subclass.

        Without ``preprocessing`` pixels are scaled by 1/255. A UserError refuses a shape that is
        not that of an image, or is too small.
        """
        super().__init__()
        self.observation_shape = checked_shape(observation_shape)
        self.options = dict(options)
        self.preprocessing = preprocessing or Preprocessing(self.observation_shape)
        _, height, width = self.preprocessing.image_shape
        if min(height, width) < self.least_size:
            raise TooSmallError(self.name, (height, width), self.least_size)

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """Observations, uint8 (batch, channels, height, width), to features (batch, features_dim).

        Features have autocast's dtype, or else float32.
        """
        return self.projection(self.pool(self.trunk(self.preprocessing(observations))))

    def spec(self) -> EncoderSpec:
        """The arguments of ``create_encoder`` for this encoder, as JSON values."""
        return {
            "version": SPEC_VERSION,
            "name": self.name,
            "observation_shape": list(self.observation_shape),
            "options": dict(self.options),
        }

    # Subclasses for published networks override these to load their weights.

    def own_name(self, tensor_name: str) -> str:
        """The name in ``state_dict()`` of a tensor in a weights file."""
        return tensor_name

    def leaves_out(self, tensor_name: str) -> bool:
        """Whether a tensor of a weights file is not used, such as a classifier's."""
        return False

    def may_stay_new(self, own_name: str) -> bool:
        """Whether a weights file may lack a tensor of this encoder."""
        return False

    def shares_trunk(self, spec: EncoderSpec) -> bool:
        """Whether another encoder has the same trunk, whatever its other parts."""
        return False

    def adapt(self, own_name: str, tensor: torch.Tensor) -> tuple[torch.Tensor, str] | None:
        """A tensor of another shape converted to fit, and the conversion; None if impossible."""
        return None

    def imagenet_weights(self) -> Mapping[str, torch.Tensor]:
        """Weights trained on ImageNet; a UserError where there are none, or no network."""
        raise UserError(
            f'there are no ImageNet weights for encoder "{self.name}": those of torchvision and '
            "timm have some, such as resnet18."
        )

    def imagenet_source(self) -> str:
        """The address of ``imagenet_weights``."""
        return ""

    # A frozen encoder runs in two halves. The frozen one makes items, once per frame, which are
    # stored in place of the frame; the trained one computes an observation's features from the
    # stored items at each use, equal to those of ``forward``.

    def storage_layout(self, depth: int) -> tuple[int, int]:
        """Number and length of the items of an observation of ``depth`` frames.

        There are ``depth`` items, one for each frame, if the encoder encodes each frame alone;
        otherwise one item for the whole observation.
        """
        return 1, self.features_dim

    def encode_for_storage(self, frames: torch.Tensor) -> torch.Tensor:
        """Encodes uint8 frames (n, channels, height, width) to items (n, length).

        Frames are single if the encoder encodes each alone, otherwise whole observations.
        """
        return self(frames)

    def features_of_stored(self, stored: torch.Tensor) -> torch.Tensor:
        """Items (batch, items * length), oldest first -> features (batch, features_dim)."""
        return stored

    def pretrained_parts(self) -> list[nn.Module]:
        """The modules of the frozen half, for which pretrained weights exist."""
        return [self]

    def nodes(self) -> list[str]:
        """Names of its nodes in order, from ``torchvision.models.feature_extraction``.

        They name modules and operations in ``nodes_of``, such as a convolution ``trunk.4``.
        """
        from torchvision.models.feature_extraction import get_graph_node_names

        tracing = {"leaf_modules": [Preprocessing]}
        return get_graph_node_names(self, tracing, suppress_diff_warning=True)[1]

    def trunk_values(self) -> int:
        """Number of values in the trunk's output for one observation."""
        return math.prod(output_shape(self.trunk, self.preprocessing.output_shape))

    def num_parameters(self) -> int:
        """Number of parameters, trainable or not."""
        return sum(parameter.numel() for parameter in self.parameters())

    def macs(self) -> int:
        """Multiply-accumulates for one observation: convolutions, linear layers and attention."""
        with FlopCounterMode(display=False) as counter:
            call_on_meta(self, self.observation_shape, torch.uint8)
        # For two observations; the counter counts a multiply-accumulate as two operations.
        return counter.get_total_flops() // 4


def output_shape(module: nn.Module, input_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of ``module``'s output for one image of ``input_shape``, without computing it."""
    # A traced network prints long texts about an error before it raises it.
    with redirect_stderr(io.StringIO()):
        return tuple(call_on_meta(module, input_shape, torch.float32).shape[1:])


def call_on_meta(module: nn.Module, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """The output for two images, uint8 or float32 (2, *shape), as a meta tensor."""
    # Meta tensors have only shapes: no weight, running statistic or generator changes.
    named = (*module.named_parameters(), *module.named_buffers())
    tensors = {name: tensor.detach().to("meta") for name, tensor in named}
    # BatchNorm may refuse a single image.
    images = torch.zeros((2, *shape), dtype=dtype, device="meta")
    return torch.func.functional_call(module, tensors, images)


def initialise_orthogonally(module: nn.Module, gain: float) -> None:
    """Orthogonal weights and zero biases for every convolution and linear layer in ``module``."""
    initialise(module, partial(nn.init.orthogonal_, gain=gain))


def initialise(module: nn.Module, fill: Callable[[torch.Tensor], object]) -> None:
    """Fills the weights of convolutions and linear layers in ``module``; their biases are zero."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            fill(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def check_positive(option: str, value: object, *, whole: bool = True) -> None:
    """Refuses an option that is not a positive (whole) number with a :class:`UserError`."""
    kinds = (int,) if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not 0 < value < math.inf:
        kind = "whole number" if whole else "number"
        raise UserError(f"{option} must be a positive {kind}, not {value!r}.")


def check_choice(option: str, value: object, choices: Iterable[str]) -> None:
    """Refuses an option outside of ``choices`` with a :class:`UserError`."""
    names = list(choices)
    if value not in names:
        known = ", ".join(f'"{name}"' for name in names)
        raise UserError(
            f"{option} must be one of {known}, not {value!r}.{nearest(str(value), names)}"
        )


def given(**options: str) -> dict[str, str]:
    """The options that are neither "none" nor "relu", the defaults.

    An option that a later version added is left out of an encoder's options unless it is used, so
    that they equal those in the files of earlier versions.
    """
    return {name: value for name, value in options.items() if value not in ("none", "relu")}


def checked_shape(shape: Sequence[int]) -> ObservationShape:
    """The shape of an image as three Python integers; refuses others with a UserError."""
    if len(shape) != 3 or not all(isinstance(side, Integral) and side > 0 for side in shape):
        raise UserError(
            f"an encoder takes images (channels, height, width), not observations of shape "
            f"{tuple(shape)}."
        )
    channels, height, width = (int(side) for side in shape)
    return channels, height, width
