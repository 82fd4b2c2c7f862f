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
from rlcnn.encoders.frozen_features import encode_for_storage, storage_layout

FrameShape = tuple[int, int, int]

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def feature_dtype(name: FeatureType, precision: str) -> torch.dtype:
    """The type in which a frozen encoder's features are stored.

    Args:
        name: "auto" takes the type that the encoder computes in, which loses almost nothing.
        precision: of the encoder: "fp32", "tf32" or "bf16".
    """
    if name == "auto":
        return torch.bfloat16 if precision == "bf16" else torch.float32
    return _DTYPES[name]


class PixelCodec:
    """Stores frames unchanged.

    Attributes:
        stacking: how an observation is built from what is stored.
        shape: (channels, height, width) stored for each frame.
        dtype: stored.
        blank: stands for a frame of zeros, of ``shape``; None for zeros.

    Raises:
        UserError: ``stacking`` does not produce observations of ``observation_shape``, as when the
            environment was wrapped once more.
    """

    dtype = torch.uint8
    blank: torch.Tensor | None = None

    def __init__(self, stacking: FrameStacking, observation_shape: tuple[int, ...]) -> None:
        _check_stacking(stacking, observation_shape)
        self.stacking = stacking
        _, height, width = observation_shape
        self.shape: FrameShape = (stacking.channels, height, width)

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

    Attributes:
        stacking, shape, dtype, blank: as for :class:`PixelCodec`, with items in place of frames.

    Args:
        encoder: the frozen encoder.
        stacking: how the environment stacks frames.
        device: of the encoder.
        autocast: whether it computes in bfloat16.
        dtype: floating-point type of stored items; values beyond its range become its largest
            number.

    Raises:
        UserError: as :class:`PixelCodec`.
    """

    def __init__(
        self,
        encoder: Encoder,
        stacking: FrameStacking,
        device: torch.device,
        *,
        autocast: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        _check_stacking(stacking, encoder.observation_shape)
        self._encoder, self._device, self._autocast = encoder, device, autocast
        self.dtype = dtype
        depth, length = storage_layout(encoder, stacking.depth)
        self.stacking = FrameStacking(depth, length, stacking.padding)
        self.shape: FrameShape = (length, 1, 1)
        # Of the pixels that make one item.
        self._channels = stacking.depth * stacking.channels // depth
        self._pads = depth > 1 and stacking.padding == "zeros"
        self._most_frames = 0

    @cached_property
    def blank(self) -> torch.Tensor | None:
        """Computed at the first use: before that, a checkpoint may be loaded into the encoder."""
        if not self._pads:
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
        with (
            torch.no_grad(),
            torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._autocast),
        ):
            items = encode_for_storage(self._encoder, pixels)
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
