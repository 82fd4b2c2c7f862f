"""Labelled observations of games; each frame is stored once."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from rlcnn.data.images import Episodes, LabelledImages, Task


class StackedFrames(LabelledImages):
    """An agent's observations, rebuilt at each use from frames that are stored once.

    An observation shares all but one of its frames with the one before it. 100,000 grey ones of
    4 x 84 x 84 take 0.7 GB instead of 2.8 GB.

    Attributes:
        frames: uint8 (frames, C, height, width); the first is all zeros and pads fresh stacks.
        stacks: int64 (observations, frame_stack): frame numbers, oldest first.
        about: how the observations were made, as JSON values.
    """

    def __init__(
        self,
        frames: torch.Tensor,
        stacks: torch.Tensor,
        labels: torch.Tensor,
        tasks: Sequence[Task],
        about: Mapping[str, Any],
        episodes: Episodes | None = None,
    ) -> None:
        """Takes the frames without a copy: two splits may share them.

        Raises:
            UserError: as for :class:`LabelledImages`, which also describes labels and tasks.
            ValueError: the stacks do not fit the frames or the labels.
        """
        if frames.dtype != torch.uint8 or frames.ndim != 4:
            raise ValueError(f"expected uint8 (n, c, h, w), not {frames.dtype} {frames.shape}")
        stacks = stacks.to(torch.int64)
        if stacks.ndim != 2 or len(stacks) != len(labels):
            raise ValueError(f"stacks of shape {tuple(stacks.shape)}, but {len(labels)} labels")
        if len(stacks) and not 0 <= int(stacks.min()) <= int(stacks.max()) < len(frames):
            raise ValueError(f"stacks must be of frames 0 to {len(frames) - 1}")
        super().__init__(labels, tasks)
        self.frames = frames
        self.stacks = stacks
        self.about = dict(about)
        self.episodes = episodes

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(frame_stack * C, height, width)."""
        channels, height, width = self.frames.shape[1:]
        return self.stacks.shape[1] * channels, height, width

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.frames[self.stacks[index]].reshape(self.image_shape)

    def gather(self, indices: torch.Tensor) -> torch.Tensor:
        return self.frames[self.stacks[indices]].reshape(len(indices), *self.image_shape)

    def stored_on(self, device: torch.device, most: int) -> StackedFrames | None:
        # Copies only the frames in its own stacks.
        used, stacks = self.stacks.unique(return_inverse=True)
        if len(used) * self.frames[0].nbytes + stacks.nbytes > most:
            return None
        stored = copy.copy(self)
        stored.frames, stored.stacks = self.frames[used].to(device), stacks.to(device)
        return stored


class FrameBuffer:
    """An array of frames that grows in place; joining a list would need twice the memory."""

    def __init__(self, frame_shape: tuple[int, ...]) -> None:
        """Starts with one frame of zeros; ``frame_shape``: (C, height, width)."""
        self._frames = np.zeros((1024, *frame_shape), dtype=np.uint8)
        self._count = 1

    def __len__(self) -> int:
        return self._count

    def append(self, frames: np.ndarray) -> None:
        """Adds frames, uint8 (n, C, height, width)."""
        count = self._count + len(frames)
        if count > len(self._frames):
            self._resize(max(count, len(self._frames) + len(self._frames) // 8))
        self._frames[self._count : count] = frames
        self._count = count

    def finish(self) -> np.ndarray:
        """All frames, uint8 (frames, C, height, width); the buffer cannot be used afterwards."""
        self._resize(self._count)
        return self._frames

    def _resize(self, count: int) -> None:
        # No other reference to the array exists, so nothing reads memory that has moved. The
        # operating system moves it without a copy.
        self._frames.resize((count, *self._frames.shape[1:]), refcheck=False)
