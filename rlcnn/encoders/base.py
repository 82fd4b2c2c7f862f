"""What every encoder is: uint8 observations in, one feature vector each out."""

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
        least: height and width that it needs.
    """

    def __init__(self, name: str, size: tuple[int, int], least: int) -> None:
        super().__init__(
            f'{size[0]}x{size[1]} pixels are too small for encoder "{name}": '
            f"it needs at least {least}x{least}."
        )
        self.least = least


@contextmanager
def size_option(option: str) -> Iterator[None]:
    """Names the option of a script that makes images larger where they are too small.

    Raises:
        UserError: as the block does, with the option and the size that is needed.
    """
    try:
        yield
    except TooSmallError as error:
        raise UserError(f"{error} Give {option} {error.least}.") from error


class EncoderSpec(TypedDict):
    """All that is needed to build an encoder anew (its weights aside); plain JSON."""

    version: int
    name: str
    observation_shape: list[int]
    options: dict[str, Any]


class Preprocessing(nn.Module):
    """uint8 images -> the floats a trunk was made for, in one place with the trunk.

    Pixels become ``(value / 255 - mean) / std``, in the dtype the convolutions will run in, and in
    channels_last order, which is the faster one for them. Where the first convolution takes blocks
    of pixels (:class:`~rlcnn.encoders.blocks.BlockedConv2d`), they are moved into the channels
    here, while they are single bytes.

    With ``scaled=False`` pixels keep their values, of which the first convolution is to take the
    1/255.

    Under autocast the uint8 values are cast straight to its dtype: bfloat16 and float16 both hold
    0..255 exactly, so nothing is lost before the scaling.
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
        """Describes the input a trunk expects.

        Args:
            observation_shape: (channels, height, width) of the observations.
            mean: of each channel of one frame, for values in [0, 1]; repeated for stacked frames.
            std: likewise.
            resize: (height, width) to resize to (bilinear, antialiased), or one side of a square.
            block: side of the blocks of pixels that become channels; 1 leaves pixels where they
                are. Rows and columns that fill no block are cut off.
            grey_to_rgb: whether the one channel of a grey frame becomes as many as ``mean`` has.
            scaled: whether pixels are scaled at all, as any but a first convolution that scales
                them itself needs; for no ``mean`` and ``resize`` only.

        Raises:
            ValueError: mean and std do not come together, or do not fit the channels; or there are
                some, or a size, for pixels that are not to be scaled.
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
        # Not persistent: these come from the encoder's options, so a weights file has no say in
        # them. As buffers they follow the module from device to device.
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
        """Makes of observations what the trunk takes.

        Args:
            observations: uint8 (batch, channels, height, width).

        Returns:
            (batch, channels, height', width') in autocast's dtype where autocast is on, otherwise
            in the module's own (float32); with blocks
            (batch, channels * block**2, height' // block, width' // block).

        Raises:
            TypeError: the observations are not uint8.
            ValueError: they have another shape than the encoder was built for.
        """
        if observations.dtype != torch.uint8:
            raise TypeError(f"encoders take uint8 observations, not {observations.dtype}")
        if observations.shape[1:] != self.observation_shape:
            raise ValueError(
                f"this encoder was built for observations (batch, *{self.observation_shape}), "
                f"not {tuple(observations.shape)}"
            )
        device = observations.device.type
        # Where shapes alone are computed, asking for autocast raises; torch 2.11 cannot compile
        # the question whether a device has any.
        autocast = device != "meta" and torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if autocast else self.scale.dtype
        if self.resize is None and self.shift is None:
            # Reordered last: on CPU faster than casting into the new order in one step.
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
    ``projection`` (-> ``features_dim`` features) and hand every constructor option to
    ``super().__init__``, so that ``spec()`` can rebuild them. All submodules are named and
    ``Preprocessing`` holds the only branches on what comes in, so
    ``torchvision.models.feature_extraction.create_feature_extractor`` can cut an encoder at any
    node, given ``tracer_kwargs={"leaf_modules": [Preprocessing]}``.

    Attributes:
        name: the name it is registered under.
        observation_shape: (channels, height, width) of the uint8 observations it takes.
        options: the constructor's options, JSON values.
        features_dim: length of a feature vector.
    """

    name: str
    features_dim: int
    least_size: ClassVar[int] = 1
    """Smallest height and width for which the trunk leaves at least one position."""

    nodes_of: ClassVar[str] = ""
    """The module whose nodes ``nodes`` names; the encoder itself where it is empty."""

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
        """Checks the shape and takes note of what the encoder is made with.

        Args:
            observation_shape: (channels, height, width).
            options: every option of the subclass's constructor with its value.
            preprocessing: None only scales by 1/255.

        Raises:
            UserError: no image shape, or too small an image.
        """
        super().__init__()
        self.observation_shape = checked_shape(observation_shape)
        self.options = dict(options)
        self.preprocessing = preprocessing or Preprocessing(self.observation_shape)
        _, height, width = self.preprocessing.image_shape
        if min(height, width) < self.least_size:
            raise TooSmallError(self.name, (height, width), self.least_size)

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """Encodes observations.

        Args:
            observations: uint8 (batch, channels, height, width).

        Returns:
            Features (batch, features_dim), float32, or autocast's dtype where autocast is on.
        """
        return self.projection(self.pool(self.trunk(self.preprocessing(observations))))

    def spec(self) -> EncoderSpec:
        """What ``create_encoder`` needs to build this encoder anew, as plain JSON."""
        return {
            "version": SPEC_VERSION,
            "name": self.name,
            "observation_shape": list(self.observation_shape),
            "options": dict(self.options),
        }

    # What a subclass made of a published network overrides, so that its weights can be loaded.

    def own_name(self, tensor_name: str) -> str:
        """What a tensor of a weights file is called in this encoder's ``state_dict``."""
        return tensor_name

    def leaves_out(self, tensor_name: str) -> bool:
        """Whether a tensor of a weights file is known and has no use here, as a classifier's."""
        return False

    def may_stay_new(self, own_name: str) -> bool:
        """Whether a tensor of this encoder need not be in a weights file."""
        return False

    def shares_trunk(self, spec: EncoderSpec) -> bool:
        """Whether the trunk of another encoder takes the same weights, whatever comes after it."""
        return False

    def adapt(self, own_name: str, tensor: torch.Tensor) -> tuple[torch.Tensor, str] | None:
        """A tensor of another shape made to fit, and how; None where that cannot be done."""
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
        """Where ``imagenet_weights`` come from."""
        return ""

    def nodes(self) -> list[str]:
        """What it computes, in order, named as ``torchvision.models.feature_extraction`` does.

        The names are those of modules and operations in ``nodes_of``: a convolution ``trunk.4``.
        """
        from torchvision.models.feature_extraction import get_graph_node_names

        tracing = {"leaf_modules": [Preprocessing]}
        return get_graph_node_names(self, tracing, suppress_diff_warning=True)[1]

    def num_parameters(self) -> int:
        """Number of parameters, trainable or frozen."""
        return sum(parameter.numel() for parameter in self.parameters())

    def macs(self) -> int:
        """Multiply-accumulates for one observation: convolutions, linear layers and attention."""
        # Two observations, since BatchNorm may refuse one.
        batch = 2
        # Meta tensors carry shapes only: nothing is computed, and no weight, running statistic
        # or random number generator is touched.
        tensors = {
            name: tensor.detach().to("meta")
            for name, tensor in (*self.named_parameters(), *self.named_buffers())
        }
        observations = torch.zeros(
            (batch, *self.observation_shape), dtype=torch.uint8, device="meta"
        )
        with FlopCounterMode(display=False) as counter:
            torch.func.functional_call(self, tensors, observations)
        # It counts a multiply-accumulate as two.
        return counter.get_total_flops() // (2 * batch)


def output_shape(module: nn.Module, input_shape: ObservationShape) -> tuple[int, ...]:
    """Shape of ``module``'s output for one image of ``input_shape``; nothing is computed."""
    tensors = {
        name: tensor.detach().to("meta")
        for name, tensor in (*module.named_parameters(), *module.named_buffers())
    }
    images = torch.zeros((2, *input_shape), device="meta")
    # A traced network prints pages about an error before it raises it.
    with redirect_stderr(io.StringIO()):
        return tuple(torch.func.functional_call(module, tensors, images).shape[1:])


def trunk_output_shape(trunk: nn.Module, input_shape: ObservationShape) -> ObservationShape:
    """Shape (channels, height, width) of ``trunk``'s output for one image of ``input_shape``."""
    channels, height, width = output_shape(trunk, input_shape)
    return channels, height, width


def initialise_orthogonally(module: nn.Module, gain: float) -> None:
    """Orthogonal weights and zero biases for every convolution and linear layer in ``module``."""
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.orthogonal_(layer.weight, gain)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def check_positive(option: str, value: object, *, whole: bool = True) -> None:
    """Refuses an option that is not a positive (whole) number.

    Raises:
        UserError: it is not.
    """
    kinds = (int,) if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not 0 < value < math.inf:
        kind = "whole number" if whole else "number"
        raise UserError(f"{option} must be a positive {kind}, not {value!r}.")


def check_choice(option: str, value: object, choices: Iterable[str]) -> None:
    """Refuses an option that is none of ``choices``.

    Raises:
        UserError: it is none of them.
    """
    names = list(choices)
    if value not in names:
        known = ", ".join(f'"{name}"' for name in names)
        raise UserError(
            f"{option} must be one of {known}, not {value!r}.{nearest(str(value), names)}"
        )


def checked_shape(shape: Sequence[int]) -> ObservationShape:
    """The shape of an image as three plain numbers.

    Raises:
        UserError: it is none.
    """
    if len(shape) != 3 or not all(isinstance(side, Integral) and side > 0 for side in shape):
        raise UserError(
            f"an encoder takes images (channels, height, width), not observations of shape "
            f"{tuple(shape)}."
        )
    channels, height, width = (int(side) for side in shape)
    return channels, height, width
