"""Rebuilding stacked observations from frames that were stored once."""

from __future__ import annotations

import torch

from envs.stacking import FrameStacking


def stack_frames(
    frames: torch.Tensor,
    ages: torch.Tensor,
    rows: torch.Tensor,
    columns: torch.Tensor,
    stacking: FrameStacking,
    blank: torch.Tensor | None = None,
) -> torch.Tensor:
    """Rebuilds observations, bit-equal to the environment's own stack.

    Args:
        frames: (rows, environments, channels, height, width), a ring along its first axis: uint8,
            or what a frozen encoder made of each frame, as channels of one pixel.
        ages: uint8 (rows, environments), how many frames the stack already held when this frame
            came: 0 for the first frame of a fresh stack, at most ``depth - 1``.
        rows: int64 (batch,), the row of each observation's newest frame.
        columns: int64 (batch,), the environment of each observation.
        stacking: how the environment makes an observation of frames.
        blank: (channels, height, width), what stands for a frame of zeros; None for zeros.

    Returns:
        As ``frames``, (batch, depth * channels, height, width), the oldest frame first.
    """
    if stacking.depth == 1:
        return frames[rows, columns]
    back = torch.arange(stacking.depth - 1, -1, -1, device=frames.device)
    age = ages[rows, columns].long()[:, None]
    source = (rows[:, None] - torch.minimum(back, age)) % frames.shape[0]
    flat = (source * frames.shape[1] + columns[:, None]).flatten()
    stack = frames.flatten(0, 1).index_select(0, flat)
    stack = stack.view(len(rows), stacking.depth, *frames.shape[2:])
    if stacking.padding == "zeros":
        before = back > age
        if may_look(stack):
            # Few frames are: to look for them first is cheaper than to go through all pixels.
            stack[before.nonzero(as_tuple=True)] = 0 if blank is None else blank
        elif blank is None:
            stack.masked_fill_(before[:, :, None, None, None], 0)
        else:
            stack = torch.where(before[:, :, None, None, None], blank, stack)
    return stack.flatten(1, 2)


def push_frames(
    stacks: torch.Tensor,
    newest: torch.Tensor,
    fresh: torch.Tensor,
    stacking: FrameStacking,
    blank: torch.Tensor | None = None,
) -> torch.Tensor:
    """Observations one step later, bit-equal to the environment's own stack.

    Args:
        stacks: (batch, depth * channels, height, width), as :func:`stack_frames` returns them.
        newest: (batch, channels, height, width), the frame that each of them gains.
        fresh: bool (batch,), whose stack begins anew with it.
        stacking: how the environment makes an observation of frames.
        blank: (channels, height, width), what stands for a frame of zeros; None for zeros.
    """
    if stacking.depth == 1:
        return newest
    padding = newest
    if stacking.padding == "zeros":
        padding = torch.zeros_like(newest) if blank is None else blank.expand_as(newest)
    padding = padding.repeat(1, stacking.depth - 1, 1, 1)
    older = torch.where(fresh[:, None, None, None], padding, stacks[:, newest.shape[1] :])
    return torch.cat((older, newest), dim=1)


def may_look(tensor: torch.Tensor) -> bool:
    """Whether Python may ask what is in a tensor; on a GPU that would be to wait for it."""
    return tensor.device.type == "cpu"
