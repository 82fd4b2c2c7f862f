"""The base class of encoders: uint8 observations -> feature vectors."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from numbers import Integral
from typing import Any, ClassVar, TypedDict

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from envs.errors import UserError, nearest
from rlcnn.encoders.blocks import blocks_to_channels

SPEC_VERSION = 1

ObservationShape = tuple[int, int, int]


class TooSmallError(UserError):
    """Images are too small for an encoder.

    Attributes:
        least: least height and width.
    """

    def __init__(self, name: str, size: tuple[int, int], least: int) -> None:
        super().__init__(
            f'{size[0]}x{size[1]} pixels are too small for encoder "{name}": '
            f"it needs at least {least}x{least}."
        )
        self.least = least


@contextmanager
def size_option(option: str) -> Iterator[None]:
    """Adds the option of a script that enlarges images to the error for images that are too small.

    Raises:
        UserError: the block's error, with the option and the least size.
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


class Preprocessing(nn.Module):
    """uint8 images -> the trunk's input.

    Pixels become ``(value / 255 - mean) / std`` in the dtype of the convolutions, in channels_last
    order, which is faster for them. If the first convolution takes blocks of pixels
    (:class:`~rlcnn.encoders.blocks.BlockedConv2d`), blocks are moved into the channels while pixels
    are still bytes.

    With ``scaled=False`` pixels keep their values, and the first convolution scales them.

    Under autocast uint8 is cast directly to autocast's dtype: bfloat16 and float16 represent 0..255
    exactly.
    """

    scale: torch.Tensor
    shift: torch.Tensor | None

    def __init__(
        self,
        observation_shape: ObservationShape,
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        resize: int | tuple[int, int] | None = None,
        block: int = 1,
        grey_to_rgb: bool = False,
        scaled: bool = True,
    ) -> None:
        """Describes the trunk's input.

        Args:
            observation_shape: (channels, height, width) of the observations.
            mean: mean of each channel of one frame, for values in [0, 1]; repeated for a stack.
            std: standard deviation, likewise.
            resize: (height, width) to resize to (bilinear, antialiased), or the side of a square.
            block: side of the blocks of pixels that become channels; 1 for no blocks. Rows and
                columns outside of whole blocks are cut off.
            grey_to_rgb: whether the channel of a grey frame is repeated for each value of ``mean``.
            scaled: whether pixels are scaled; False is for a first convolution that scales them,
                without ``mean`` and ``resize``.

        Raises:
            ValueError: mean and std are not given together, do not fit the channels, or contradict
                ``scaled=False``; or ``resize`` does.
        """
        super().__init__()
        self.observation_shape = observation_shape
        self.resize = (resize, resize) if isinstance(resize, int) else resize
        channels, height, width = observation_shape
        if grey_to_rgb:
            if channels != 1 or mean is None:
                raise ValueError("grey_to_rgb is for one channel, and needs a mean and std")
            channels = len(mean)
        self.block = block
        self.scaled = scaled
        height, width = self.resize or (height, width)
        self.image_shape: ObservationShape = (channels, height, width)
        self.output_shape: ObservationShape = (
            channels * block**2,
            height // block,
            width // block,
        )
        if not scaled and (mean is not None or resize is not None):
            raise ValueError("scaled=False is for pixels just as they are")
        if (mean is None) != (std is None):
            raise ValueError("mean and std must be given together")
        # Not persistent, since the encoder's options determine them and not a weights file. As
        # buffers they move with the module to a device.
        if mean is None or std is None:
            self.register_buffer("scale", torch.tensor(1 / 255), persistent=False)
            self.register_buffer("shift", None)
        else:
            if len(mean) != len(std) or channels % len(mean):
                raise ValueError(
                    f"{len(mean)} means and {len(std)} stds do not fit {channels} channels"
                )
            means = torch.tensor(mean).repeat(channels // len(mean)).view(-1, 1, 1)
            stds = torch.tensor(std).repeat(channels // len(std)).view(-1, 1, 1)
            self.register_buffer("scale", 1 / (255 * stds), persistent=False)
            self.register_buffer("shift", -means / stds, persistent=False)

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """Converts observations, uint8 (batch, channels, height, width), to the trunk's input.

        Returns:
            (batch, channels, height', width'), in autocast's dtype or else float32; with blocks
            (batch, channels * block**2, height' // block, width' // block).

        Raises:
            TypeError: the observations are not uint8.
            ValueError: the encoder was built for another shape.
        """
        if observations.dtype != torch.uint8:
            raise TypeError(f"encoders take uint8 observations, not {observations.dtype}")
        if observations.shape[1:] != self.observation_shape:
            raise ValueError(
                f"this encoder was built for observations (batch, *{self.observation_shape}), "
                f"not {tuple(observations.shape)}"
            )
        device = observations.device.type
        # On "meta" is_autocast_enabled raises; torch 2.11 cannot compile is_autocast_available.
        autocast = device != "meta" and torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if autocast else self.scale.dtype
        if self.resize is None and self.shift is None:
            # On a CPU, reordering last is faster than casting and reordering in one step.
            x = blocks_to_channels(observations, self.block).to(dtype)
            if self.scaled:
                x.mul_(self.scale)
            return x.contiguous(memory_format=torch.channels_last)
        x = observations.to(self.scale.dtype, memory_format=torch.channels_last)
        if self.resize is not None:
            x = F.interpolate(x, self.resize, mode="bilinear", antialias=True)
        x = x * self.scale if self.shift is None else torch.addcmul(self.shift, x, self.scale)
        return blocks_to_channels(x.to(dtype, memory_format=torch.channels_last), self.block)


class Encoder(nn.Module):
    """A convolutional network from uint8 observations to feature vectors.

    Subclasses build ``trunk`` (the convolutions), ``pool`` (feature maps -> one vector) and
    ``projection`` (-> ``features_dim`` features), and pass every constructor option to
    ``super().__init__`` for ``spec()``. All submodules have names, and only ``Preprocessing``
    branches on its input, so
    ``torchvision.models.feature_extraction.create_feature_extractor`` can cut an encoder at any
    node with ``tracer_kwargs={"leaf_modules": [Preprocessing]}``.

    Attributes:
        name: its registered name.
        observation_shape: (channels, height, width) of the uint8 observations.
        options: the constructor's options, JSON values.
        features_dim: length of a feature vector.
    """

    name: str
    features_dim: int
    least_size: ClassVar[int] = 1
    """Least height and width for which the trunk's output is not empty."""

    nodes_of: ClassVar[str] = ""
    """The submodule whose nodes ``nodes`` lists; empty for the encoder itself."""

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

        Without ``preprocessing`` pixels are scaled by 1/255.

        Raises:
            UserError: the shape is not that of an image, or is too small.
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
        """Weights trained on ImageNet, for ``rlcnn.weights.load``.

        Raises:
            UserError: there are none, or they cannot be downloaded.
        """
        raise UserError(
            f'there are no ImageNet weights for encoder "{self.name}": those of torchvision and '
            "timm have some, such as resnet18."
        )

    def imagenet_source(self) -> str:
        """The address of ``imagenet_weights``."""
        return ""

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
        # BatchNorm may refuse a single observation.
        batch = 2
        # Meta tensors have only shapes: no weight, running statistic or generator changes.
        tensors = {
            name: tensor.detach().to("meta")
            for name, tensor in (*self.named_parameters(), *self.named_buffers())
        }
        observations = torch.zeros(
            (batch, *self.observation_shape), dtype=torch.uint8, device="meta"
        )
        with FlopCounterMode(display=False) as counter:
            torch.func.functional_call(self, tensors, observations)
        # The counter counts a multiply-accumulate as two operations.
        return counter.get_total_flops() // (2 * batch)


def output_shape(module: nn.Module, input_shape: ObservationShape) -> tuple[int, ...]:
    """Shape of ``module``'s output for one image of ``input_shape``, without computing it."""
    tensors = {
        name: tensor.detach().to("meta")
        for name, tensor in (*module.named_parameters(), *module.named_buffers())
    }
    images = torch.zeros((2, *input_shape), device="meta")
    # A traced network prints long texts about an error before it raises it.
    with redirect_stderr(io.StringIO()):
        return tuple(torch.func.functional_call(module, tensors, images).shape[1:])


def initialise_orthogonally(module: nn.Module, gain: float) -> None:
    """Orthogonal weights and zero biases for every convolution and linear layer in ``module``."""
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.orthogonal_(layer.weight, gain)
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


def checked_shape(shape: Sequence[int]) -> ObservationShape:
    """The shape of an image as three Python integers.

    Raises:
        UserError: it is not the shape of an image.
    """
    if len(shape) != 3 or not all(isinstance(side, Integral) and side > 0 for side in shape):
        raise UserError(
            f"an encoder takes images (channels, height, width), not observations of shape "
            f"{tuple(shape)}."
        )
    channels, height, width = (int(side) for side in shape)
    return channels, height, width
