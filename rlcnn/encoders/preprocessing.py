"""Preprocessing: uint8 images to the input of a trunk, kept with the trunk and its weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

from rlcnn.encoders.blocks import blocks_to_channels
from rlcnn.encoders.running_moments import LIMIT, RunningMoments

ObservationShape = tuple[int, int, int]

InputNorm = Literal["none", "running"]
"""Normalisation of pixels: "running" subtracts each pixel's mean and divides by its deviation over
the frames of past rollouts. PPO and PQN update both after each update; all else keeps them."""

# Frames whose squares are summed at once.
_CHUNK = 256


class Preprocessing(nn.Module):
    """uint8 images -> the trunk's input.

    Pixels become ``(value / 255 - mean) / std`` in the dtype of the convolutions, in channels_last
    order, which is faster for them. If the first convolution takes blocks of pixels
    (:class:`~rlcnn.encoders.blocks.BlockedConv2d`), blocks are moved into the channels while pixels
    are still bytes.

    With ``scaled=False`` pixels keep their values, and the first convolution scales them.

    With ``running`` the mean and std are each pixel's own, over all frames given to
    :meth:`observe`, and what is beyond 5 deviations is cut off, as rl_games normalises inputs. They
    are buffers, so weights files have them. At first pixels are scaled by 1/255 alone.

    Under autocast uint8 is cast directly to autocast's dtype: bfloat16 and float16 represent 0..255
    exactly.
    """

    scale: torch.Tensor
    shift: torch.Tensor | None
    moments: RunningMoments | None
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
        running: bool = False,
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
            running: whether each pixel is normalised by running statistics; for scaled pixels
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
        if running and (not scaled or mean is not None or resize is not None):
            raise ValueError("running is for scaled pixels without a mean of their own")
        self.moments = RunningMoments(observation_shape) if running else None
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
        if self.moments is not None:
            return self._normalised(observations).to(dtype, memory_format=torch.channels_last)
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

    def _normalised(self, observations: torch.Tensor) -> torch.Tensor:
        """Blocks of normalised pixels, float32."""
        assert self.moments is not None
        deviation = self.moments.deviation
        # Blocks are moved while pixels are bytes, and the statistics likewise.
        pixels = blocks_to_channels(observations, self.block).float()
        scale, shift = (
            blocks_to_channels(statistic.float()[None], self.block)
            for statistic in (1 / (255 * deviation), -self.moments.mean / deviation)
        )
        return torch.addcmul(shift, pixels, scale).clamp(-LIMIT, LIMIT)

    @torch.no_grad()
    def observe(self, frames: torch.Tensor) -> None:
        """Takes the pixels of frames into the running statistics, if there are any to update.

        A layer in evaluation mode, such as a frozen one, does not change. A stack has the
        statistics of its frames. Sums are of whole numbers, so they do not depend on their order.

        Args:
            frames: uint8 (n, channels of a frame, height, width).
        """
        if self.moments is None or not self.training:
            return
        count = len(frames)
        total = torch.zeros(frames.shape[1:], dtype=torch.int64, device=frames.device)
        squares = torch.zeros_like(total)
        for part in frames.split(_CHUNK):
            values = part.int()
            total += values.sum(dim=0)
            squares += values.square().sum(dim=0)
        depth = self.observation_shape[0] // frames.shape[1]
        mean = total.double() / (255 * count)
        variance = (count * squares - total.square()).double() / (255 * count) ** 2
        self.moments.merge(mean.repeat(depth, 1, 1), variance.repeat(depth, 1, 1), count)
