"""What storage keeps of a frame, and the policy receives: pixels, or a frozen encoder's features.

Both codecs offer ``encode_newest`` for the newest frame of each observation and ``encode_stacks``
for all its frames; one storage takes the results of both.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch

from agents.networks.transfer_options import FeatureType
from envs.errors import UserError
from envs.stacking import FrameStacking
from rlcnn.accelerate.transfers import upload
from rlcnn.encoders import Encoder

FrameShape = tuple[int, int, int]

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class PixelCodec:
    """Stores frames unchanged.

    A UserError says that ``stacking`` does not produce observations of ``observation_shape``, as
    when the environment was wrapped once more.
    """

    frame_stacking: FrameStacking  # how the environment stacks frames
    stacking: FrameStacking  # how an observation is built from what is stored
    shape: FrameShape  # (channels, height, width) stored for each frame
    dtype = torch.uint8
    blank: torch.Tensor | None = None  # stands for a frame of zeros, of ``shape``; None for zeros

    def __init__(self, stacking: FrameStacking, observation_shape: tuple[int, ...]) -> None:
        _check_stacking(stacking, observation_shape)
        self.frame_stacking = self.stacking = stacking
        _, height, width = observation_shape
        self.shape = (stacking.channels, height, width)

    def encode_newest(self, observations: np.ndarray) -> np.ndarray:
        """uint8 (n, depth * channels, height, width) -> (n, channels, height, width)."""
        return observations[:, -self.stacking.channels :]

    def encode_stacks(self, observations: np.ndarray) -> np.ndarray:
        """uint8 (n, depth * channels, height, width), unchanged."""
        return observations


class FeatureCodec:
    """Runs a frozen encoder once per frame and stores the features.

    An item is stored as the channels of one pixel, so that every storage of frames can hold it. For
    an encoder that takes whole observations rather than single frames, an observation is one item.
    Attributes and errors are those of :class:`PixelCodec`, with items in place of frames.

    Args:
        encoder: the frozen encoder.
        stacking: how the environment stacks frames.
        device: of the encoder.
        precision: of the encoder: "fp32", "tf32" or "bf16".
        dtype: of stored items; values beyond its range become its largest number. "auto" is the
            type that the encoder computes in, which loses almost nothing.
    """

    def __init__(
        self,
        encoder: Encoder,
        stacking: FrameStacking,
        device: torch.device,
        precision: str = "fp32",
        dtype: FeatureType = "auto",
    ) -> None:
        _check_stacking(stacking, encoder.observation_shape)
        self._encoder, self._device, self._autocast = encoder, device, precision == "bf16"
        self.dtype = _DTYPES[("bf16" if self._autocast else "fp32") if dtype == "auto" else dtype]
        self.frame_stacking = stacking
        depth, length = encoder.storage_layout(stacking.depth)
        self.stacking = FrameStacking(depth, length, stacking.padding)
        self.shape: FrameShape = (length, 1, 1)
        # Of the pixels that make one item.
        self._channels = stacking.depth * stacking.channels // depth
        self._most_frames = 0

    @cached_property
    def blank(self) -> torch.Tensor | None:
        """Computed at the first use: before that, a checkpoint may be loaded into the encoder."""
        if self.stacking.depth == 1 or self.stacking.padding != "zeros":
            return None
        size = self._encoder.observation_shape[1:]
        return self._encode(np.zeros((1, self._channels, *size), dtype=np.uint8))[0]

    def encode_newest(self, observations: np.ndarray) -> torch.Tensor:
        """uint8 (n, depth * channels, height, width) -> (n, *shape)."""
        frames = observations[:, -self._channels :]
        count = len(frames)
        if self._device.type == "cuda":
            # cuDNN times its kernels for each batch size: the few frames that a time limit cut off
            # are padded to one frame for each environment.
            self._most_frames = max(self._most_frames, count)
            padding = np.zeros((self._most_frames - count, *frames.shape[1:]), dtype=np.uint8)
            frames = np.concatenate([frames, padding])
        return self._encode(frames)[:count]

    def encode_stacks(self, observations: np.ndarray) -> torch.Tensor:
        """uint8 (n, depth * channels, height, width) -> (n, items * length, 1, 1)."""
        n, channels, *size = observations.shape
        frames = observations.reshape(n * channels // self._channels, self._channels, *size)
        return self._encode(frames).view(n, -1, 1, 1)

    def _encode(self, frames: np.ndarray) -> torch.Tensor:
        pixels = upload(frames, self._device)
        autocast = torch.autocast(self._device.type, torch.bfloat16, enabled=self._autocast)
        with torch.no_grad(), autocast:
            items = self._encoder.encode_for_storage(pixels)
        if self.dtype == torch.float16:
            # Features may leave the range of this type only; infinities would end a training.
            largest = torch.finfo(self.dtype).max
            items = items.clamp(-largest, largest)
        return items.to(self.dtype)[:, :, None, None]


FrameCodec = PixelCodec | FeatureCodec


def _check_stacking(stacking: FrameStacking, observation_shape: tuple[int, ...]) -> None:
    channels = observation_shape[0]
    if channels != stacking.depth * stacking.channels:
        raise UserError(
            f"the environment says it stacks {stacking.depth} frames of {stacking.channels}"
            f" channels, but its observations have {channels} channels: give it"
            " frame_stack=N instead of stacking its observations once more"
        )
