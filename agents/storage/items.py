"""What is stored of frames, and acted on: their pixels, or what a frozen encoder makes of them.

Both kinds offer the same: ``newest`` takes what is to be stored of each observation's newest frame,
``stacks`` what is stored of all its frames, and what they return goes through one storage.
"""

from __future__ import annotations

from functools import cached_property
from typing import Literal

import numpy as np
import torch

from agents.storage.stacking import push_frames
from envs.stacking import FrameStacking
from rlcnn.accelerate.transfers import host_tensor, upload
from rlcnn.encoders import Encoder
from rlcnn.encoders.stored import encode_for_storage, storage_layout

FrameShape = tuple[int, int, int]
FeatureType = Literal["auto", "fp32", "bf16", "fp16"]

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def feature_dtype(name: FeatureType, precision: str) -> torch.dtype:
    """The type that features of a frozen encoder are stored in.

    Args:
        name: of it; "auto" is the one that the encoder computes in, so that nearly nothing is
            lost.
        precision: what that is, "fp32", "tf32" or "bf16".
    """
    if name == "auto":
        return torch.bfloat16 if precision == "bf16" else torch.float32
    return _DTYPES[name]


class Pixels:
    """Frames as they are.

    Attributes:
        stacking: how an observation is made of what is stored.
        shape: (channels, height, width) of what is stored of a frame.
        dtype: its type.
        blank: what stands for a frame of zeros, of ``shape``; None for zeros.
    """

    dtype = torch.uint8
    blank: torch.Tensor | None = None

    def __init__(self, stacking: FrameStacking, observation_shape: tuple[int, ...]) -> None:
        self.stacking = stacking
        _, height, width = observation_shape
        self.shape: FrameShape = (stacking.channels, height, width)

    def newest(self, observations: np.ndarray) -> np.ndarray:
        """uint8 (n, depth * channels, height, width) -> (n, channels, height, width)."""
        return observations[:, -self.stacking.channels :]

    def stacks(self, observations: np.ndarray) -> np.ndarray:
        """uint8 (n, depth * channels, height, width), as they come."""
        return observations


class FrozenFeatures:
    """What a frozen encoder makes of frames, each of which it sees once.

    An item is stored as the channels of one pixel, so that whatever holds frames holds it, too.
    Where the encoder looks at whole observations rather than at each frame alone, an observation is
    one item.

    Attributes:
        stacking, shape, dtype, blank: as of :class:`Pixels`, for items instead of frames.

    Args:
        encoder: the frozen encoder.
        stacking: how the environment makes an observation of frames.
        device: where the encoder is.
        autocast: whether it computes in bfloat16.
        dtype: to store items in, a floating-point type; what is beyond its range becomes its
            largest number.
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
        """Made when first asked for: a checkpoint may be loaded into the encoder before."""
        if not self._pads:
            return None
        size = self._encoder.observation_shape[1:]
        return self._encode(np.zeros((1, self._channels, *size), dtype=np.uint8))[0]

    def newest(self, observations: np.ndarray) -> torch.Tensor:
        """uint8 (n, depth * channels, height, width) -> (n, *shape)."""
        frames = observations[:, -self._channels :]
        count = len(frames)
        if self._device.type == "cuda":
            # cuDNN times its kernels for each number of images: the few that a time limit cut off
            # are encoded as if they were as many as the environments.
            self._most_frames = max(self._most_frames, count)
            padding = np.zeros((self._most_frames - count, *frames.shape[1:]), dtype=np.uint8)
            frames = np.concatenate([frames, padding])
        return self._encode(frames)[:count]

    def stacks(self, observations: np.ndarray) -> torch.Tensor:
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
            # The one whose range features may leave; infinities would end a training.
            largest = torch.finfo(self.dtype).max
            items = items.clamp(-largest, largest)
        return items.to(self.dtype)[:, :, None, None]


Stored = Pixels | FrozenFeatures


class StackFollower:
    """The stacks that environments stand at, as a policy takes them, frame by frame.

    Args:
        stored: what the policy sees of frames.
        device: of the policy.
    """

    def __init__(self, stored: Stored, device: torch.device) -> None:
        self._stored, self._device = stored, device
        self._seen: np.ndarray | None = None
        self._stacks: torch.Tensor

    def begin(self, observations: np.ndarray) -> torch.Tensor:
        """Where the environments stand when it is not known how they came there.

        Args:
            observations: uint8 (environments, depth * channels, height, width). The very array
                that was followed last is not looked at again.
        """
        if observations is not self._seen:
            self.stand_at(observations, self._stored.stacks(observations))
        return self._stacks

    def follow(self, observations: np.ndarray, fresh: np.ndarray) -> torch.Tensor:
        """Where they stand one step later.

        Args:
            observations: as for ``begin``.
            fresh: bool (environments,), whose stack began anew with this step.
        """
        if isinstance(self._stored, Pixels):
            self.stand_at(observations, observations)
        else:
            newest = self._stored.newest(observations)
            self.stand_at(observations, self._pushed(self._stacks, newest, fresh))
        return self._stacks

    def last_of(self, observations: np.ndarray, envs: np.ndarray) -> torch.Tensor:
        """Where some of them stood when they were cut off, one step on from where they stand.

        Args:
            observations: uint8 (some environments, depth * channels, height, width).
            envs: int64 (some environments,), which they are.
        """
        if isinstance(self._stored, Pixels):
            return upload(observations, self._device)
        stacks = self._stacks[upload(envs, self._device)]
        return self._pushed(stacks, self._stored.newest(observations), np.zeros(len(envs), bool))

    def stand_at(self, observations: np.ndarray, stacks: np.ndarray | torch.Tensor) -> None:
        """Takes note of where they stand.

        Args:
            observations: as for ``begin``.
            stacks: what is stored of their frames.
        """
        self._seen = observations
        self._stacks = host_tensor(stacks).to(self._device)

    def _pushed(
        self, stacks: torch.Tensor, newest: torch.Tensor, fresh: np.ndarray
    ) -> torch.Tensor:
        began = upload(fresh, self._device)
        return push_frames(stacks, newest, began, self._stored.stacking, self._stored.blank)
