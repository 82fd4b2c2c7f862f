"""A ring of single frames from which stacked observations are rebuilt."""

from __future__ import annotations

import numpy as np
import torch

from agents.storage.codecs import FrameCodec
from agents.storage.stacking import stack_frames
from rlcnn.accelerate.transfers import upload


class FrameRing:
    """The last ``rows`` frames of each environment, oldest overwritten first.

    Frames are numbered from 0 in the order they came, each environment for itself: a truncation
    gives its environment one frame more than the others. The ring keeps the zeros that it is given:

    Args:
        frames: (rows, environments, channels, height, width): uint8 pixels, or features as channels
            of one pixel.
        frames_in_stack: uint8 (rows, environments), how many frames the stack already held when
            this frame came, at most ``depth - 1``.
        codec: how frames are stored.
    """

    def __init__(
        self, frames: torch.Tensor, frames_in_stack: torch.Tensor, codec: FrameCodec
    ) -> None:
        self.frames, self.frames_in_stack, self.codec = frames, frames_in_stack, codec
        self.stacking = codec.stacking
        self.rows, self.n_envs = frames_in_stack.shape
        # How many frames each environment has given; the newest has the number ``pushed - 1``.
        self.pushed = np.zeros(self.n_envs, dtype=np.int64)
        self._newest_in_stack = np.zeros(self.n_envs, dtype=np.uint8)
        self._all_envs = np.arange(self.n_envs)

    def push(
        self,
        frames: np.ndarray | torch.Tensor,
        stack_reset: np.ndarray | bool,
        envs: np.ndarray | None = None,
    ) -> None:
        """Takes one frame from each of some environments.

        Args:
            frames: (environments given, channels, height, width).
            stack_reset: bool (environments given,), or one for all: whether the stack starts anew.
            envs: int64 (environments given,), none twice; None for all of them.
        """
        arrays = (*self.allocate(stack_reset, envs), frames)
        self.write(*(upload(array, self.frames.device) for array in arrays))

    def allocate(
        self, stack_reset: np.ndarray | bool, envs: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Counts one more frame of each environment, to be written by :meth:`write`.

        Arguments are those of :meth:`push`. The result is where the frames go, int64 (environments
        given,), and their ``frames_in_stack``, uint8.
        """
        envs = self._all_envs if envs is None else envs
        older = np.minimum(self._newest_in_stack[envs] + 1, self.stacking.depth - 1)
        frames_in_stack = np.where(stack_reset, 0, older).astype(np.uint8)
        places = self.pushed[envs] % self.rows * self.n_envs + envs
        self.pushed[envs] += 1
        self._newest_in_stack[envs] = frames_in_stack
        return places, frames_in_stack

    def write(
        self, places: torch.Tensor, frames_in_stack: torch.Tensor, frames: torch.Tensor
    ) -> None:
        """Writes frames to allocated places; all tensors lie on the device of ``frames``."""
        self.frames.view(-1, *self.frames.shape[2:]).index_copy_(0, places, frames)
        self.frames_in_stack.view(-1).index_copy_(0, places, frames_in_stack)

    def push_stack(self, observations: np.ndarray | torch.Tensor) -> None:
        """Takes whole observations, (environments, depth * channels, height, width).

        All their frames are stored, padding included, so the newest stack of each environment
        equals its observation, whatever came before.
        """
        n, _, height, width = observations.shape
        shape = (n, self.stacking.depth, self.stacking.channels, height, width)
        for back, frames in enumerate(observations.reshape(shape).swapaxes(0, 1)):
            self.push(frames, stack_reset=back == 0)

    def stack(self, numbers: torch.Tensor, envs: torch.Tensor) -> torch.Tensor:
        """Observations (batch, depth * channels, height, width), in the frames' dtype.

        ``numbers`` are those of each observation's newest frame, and ``envs`` whose frames they
        are, both int64 (batch,).
        """
        blank = self.codec.blank
        if blank is not None:
            # The ring may be on the host while the encoder that made it is on a GPU.
            blank = blank.to(self.frames.device)
        rows = numbers % self.rows
        return stack_frames(self.frames, self.frames_in_stack, rows, envs, self.stacking, blank)

    def holds(self, numbers: np.ndarray) -> np.ndarray:
        """Whether the observation with this newest frame can still be rebuilt.

        ``numbers`` is int64 (environments,), and the result bool (environments,).
        """
        # A stack that was just reset needs fewer frames; reading that would wait for the device.
        return numbers - (self.stacking.depth - 1) >= self.pushed - self.rows

    def restore(self, pushed: np.ndarray) -> None:
        """Continues after ``frames`` and ``frames_in_stack`` were loaded."""
        self.pushed = pushed
        newest = self.frames_in_stack.cpu().numpy()[(pushed - 1) % self.rows, self._all_envs]
        self._newest_in_stack = newest.copy()

    def check_valid(self) -> None:
        """Raises AssertionError unless every ``frames_in_stack`` follows from the one before it."""
        frames_in_stack = self.frames_in_stack.cpu().numpy().astype(np.int64)
        for env, pushed in enumerate(self.pushed.tolist()):
            numbers = np.arange(max(0, pushed - self.rows), pushed)
            held = frames_in_stack[numbers % self.rows, env]
            follows = held[1:] == np.minimum(held[:-1] + 1, self.stacking.depth - 1)
            assert (follows | (held[1:] == 0)).all(), f"environment {env}: {held}"
            assert (held < self.stacking.depth).all(), f"environment {env}: {held}"
            assert not len(held) or held[-1] == self._newest_in_stack[env]
