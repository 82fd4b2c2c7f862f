"""What a replay stores: shapes and dtypes, and the memory for them."""

from __future__ import annotations

import math

import numpy as np
import torch

from agents.storage.codecs import FrameCodec, PixelCodec
from envs.errors import UserError

STEP_COLUMNS = ("numbers", "actions", "rewards", "terminated", "truncated")
"""Tensors of a replay with one entry for each step and environment."""

Layout = dict[str, tuple[tuple[int, ...], torch.dtype]]


def replay_layout(buffer_size: int, n_actions: int, n_envs: int, codec: FrameCodec) -> Layout:
    """Shape and dtype of every tensor of a replay, by its name in a snapshot.

    A UserError says that ``buffer_size`` is below ``n_envs``.
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
        "actions": (steps, torch.uint8 if n_actions <= 256 else torch.int64),
        "rewards": (steps, torch.float32),
        "terminated": (steps, torch.bool),
        "truncated": (steps, torch.bool),
    }


def step_fields(layout: Layout, n_envs: int, codec: FrameCodec) -> Layout:
    """Shape and dtype of everything that the host uploads of one step.

    A frozen encoder's features are not part of it: they are on its device already.
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


def layout_bytes(layout: Layout) -> int:
    """Bytes of all tensors together; a snapshot takes no more on disk."""
    return sum(math.prod(shape) * dtype.itemsize for shape, dtype in layout.values())


def allocate(layout: Layout, device: torch.device) -> dict[str, torch.Tensor]:
    """Zeros on ``device``; on the host, memory is taken as they are written."""
    tensors = {}
    for name, (shape, dtype) in layout.items():
        if device.type == "cpu":
            # numpy's zeros are untouched pages. As bytes, since numpy has no bfloat16.
            zeros = np.zeros(math.prod(shape) * dtype.itemsize, dtype=np.uint8)
            tensors[name] = torch.from_numpy(zeros).view(dtype).view(shape)
        else:
            tensors[name] = torch.zeros(shape, dtype=dtype, device=device)
    return tensors
