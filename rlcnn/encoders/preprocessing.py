"""Preprocessing: uint8 images to the input of a trunk, kept with the trunk and its weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from rlcnn.encoders.blocks import blocks_to_channels

ObservationShape = tuple[int, int, int]


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
    takes_floats: bool = False  # whether to take floats of 0..255, too, such as augmented images

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
            mean: of each channel of one frame, for values in [0, 1]; repeated for a stack.
            std: standard deviation, likewise.
            resize: (height, width) to resize to (bilinear, antialiased), or the side of a square.
            block: side of the blocks of pixels that become channels; 1 for no blocks. Rows and
                columns outside of whole blocks are cut off.
            grey_to_rgb: whether the channel of a grey frame is repeated for each value of ``mean``.
            scaled: whether pixels are scaled; False is for a first convolution that scales them,
                without ``mean`` and ``resize``.

        Raises:
            ValueError: arguments contradict each other or do not fit the channels.
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

        The result is (batch, channels, height', width'), in autocast's dtype or else float32; with
        blocks (batch, channels * block**2, height' // block, width' // block).

        Raises:
            TypeError: the observations are not uint8, nor floats where those are allowed.
            ValueError: the encoder was built for another shape.
        """
        floats = self.takes_floats and observations.is_floating_point()
        if observations.dtype != torch.uint8 and not floats:
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
                # Floats may be the caller's own.
                x = x * self.scale if floats else x.mul_(self.scale)
            return x.contiguous(memory_format=torch.channels_last)
        x = observations.to(self.scale.dtype, memory_format=torch.channels_last)
        if self.resize is not None:
            x = F.interpolate(x, self.resize, mode="bilinear", antialias=True)
        x = x * self.scale if self.shift is None else torch.addcmul(self.shift, x, self.scale)
        return blocks_to_channels(x.to(dtype, memory_format=torch.channels_last), self.block)
