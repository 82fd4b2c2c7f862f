"""What a replay stores: shapes and dtypes, and the memory for them."""

from __future__ import annotations

import math

import numpy as np
import torch
from gymnasium import spaces

from agents.storage.codecs import FrameCodec, PixelCodec
from envs.errors import UserError

STEP_COLUMNS = ("numbers", "actions", "rewards", "terminated", "truncated")
"""Tensors of a replay with one entry for each step and environment."""

Layout = dict[str, tuple[tuple[int, ...], torch.dtype]]


def replay_layout(
    buffer_size: int, action_space: spaces.Discrete, n_envs: int, codec: FrameCodec
) -> Layout:
    """Shape and dtype of every tensor of a replay, by its name in a snapshot.

    Raises:
        UserError: ``buffer_size`` is below ``n_envs``.
    """
    if buffer_size < n_envs:
        raise UserError(
            f"buffer_size {buffer_size} has no room for a transition of each of {n_envs}"
            f" environments: it must be at least {n_envs}"
        )
    capacity = buffer_size // n_envs
    # Room for one truncation in 100 steps, whose last frame has its own place.
    frame_rows = capacity + capacity // 100 + 2 * codec.stacking.depth
    steps = (capacity, n_envs)
    return {
        "frames": ((frame_rows, n_envs, *codec.shape), codec.dtype),
        "ages": ((frame_rows, n_envs), torch.uint8),
        "numbers": (steps, torch.int64),
        "actions": (steps, torch.uint8 if action_space.n <= 256 else torch.int64),
        "rewards": (steps, torch.float32),
        "terminated": (steps, torch.bool),
        "truncated": (steps, torch.bool),
    }


def step_fields(layout: Layout, n_envs: int, codec: FrameCodec) -> Layout:
    """Shape and dtype of everything that the host uploads of one step.

    Args:
        layout: of the replay.
        n_envs: environments in lockstep.
        codec: a frozen encoder's features are on its device already.
    """
    fields: Layout = {
        "row": ((1,), torch.int64),
        "bounds": ((1 + n_envs,), torch.int64),
        "newest": ((n_envs,), torch.int64),
        "places": ((n_envs,), torch.int64),
        "frames_in_stack": ((n_envs,), torch.uint8),
        **{name: ((1, n_envs), layout[name][1]) for name in STEP_COLUMNS},
    }
    if isinstance(codec, PixelCodec):
        fields["frames"] = ((n_envs, *codec.shape), codec.dtype)
    return fields


def allocate(layout: Layout, device: torch.device) -> dict[str, torch.Tensor]:
    """Zeros on ``device``; on the host, memory is taken as they are written."""
    return {name: _zeros(*entry, device) for name, entry in layout.items()}


def layout_bytes(layout: Layout) -> int:
    """Bytes of all tensors together."""
    return sum(math.prod(shape) * dtype.itemsize for shape, dtype in layout.values())


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    if device.type == "cpu":
        # numpy's zeros are untouched pages. As bytes, since numpy has no bfloat16.
        zeros = np.zeros(math.prod(shape) * dtype.itemsize, dtype=np.uint8)
        return torch.from_numpy(zeros).view(dtype).view(shape)
    return torch.zeros(shape, dtype=dtype, device=device)
