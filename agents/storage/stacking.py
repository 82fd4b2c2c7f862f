"""Stacked observations: rebuilt from frames stored once, or moved on by one frame."""

from __future__ import annotations

import torch

from envs.stacking import FrameStacking


def stack_frames(
    frames: torch.Tensor,
    frames_in_stack: torch.Tensor,
    rows: torch.Tensor,
    columns: torch.Tensor,
    stacking: FrameStacking,
    blank: torch.Tensor | None = None,
) -> torch.Tensor:
    """Rebuilds observations, bit-equal to the environment's own stack.

    Args:
        frames: (rows, environments, channels, height, width), a ring along its first axis: uint8
            pixels, or features as channels of one pixel.
        frames_in_stack: uint8 (rows, environments), how many frames the stack already held when
            this frame came: 0 for the first frame after a reset, at most ``depth - 1``.
        rows: int64 (batch,), the row of each observation's newest frame.
        columns: int64 (batch,), the environment of each observation.
        stacking: how the environment stacks frames.
        blank: (channels, height, width), stands for a frame of zeros; None for zeros.

    Returns:
        Of the dtype of ``frames``, (batch, depth * channels, height, width), oldest frame first.
    """
    if stacking.depth == 1:
        return frames[rows, columns]
    back = torch.arange(stacking.depth - 1, -1, -1, device=frames.device)
    older = frames_in_stack[rows, columns].long()[:, None]
    source = (rows[:, None] - torch.minimum(back, older)) % frames.shape[0]
    flat = (source * frames.shape[1] + columns[:, None]).flatten()
    stack = frames.flatten(0, 1).index_select(0, flat)
    stack = stack.view(len(rows), stacking.depth, *frames.shape[2:])
    if stacking.padding == "zeros":
        before = back > older
        if stack.device.type == "cpu":
            # Few frames are padding: finding them first is cheaper than masking all pixels. On a
            # GPU, nonzero() would wait.
            stack[before.nonzero(as_tuple=True)] = 0 if blank is None else blank
        elif blank is None:
            stack.masked_fill_(before[:, :, None, None, None], 0)
        else:
            stack = torch.where(before[:, :, None, None, None], blank, stack)
    return stack.flatten(1, 2)


def push_frames(
    stacks: torch.Tensor,
    newest: torch.Tensor,
    stack_reset: torch.Tensor,
    stacking: FrameStacking,
    blank: torch.Tensor | None = None,
) -> torch.Tensor:
    """Observations one step later, bit-equal to the environment's own stack.

    Args:
        stacks: (batch, depth * channels, height, width), as :func:`stack_frames` returns them.
        newest: (batch, channels, height, width), the frame that each stack gains.
        stack_reset: bool (batch,), which stacks start anew with this frame.
        stacking: how the environment stacks frames.
        blank: as for :func:`stack_frames`.
    """
    if stacking.depth == 1:
        return newest
    padding = newest
    if stacking.padding == "zeros":
        padding = torch.zeros_like(newest) if blank is None else blank.expand_as(newest)
    padding = padding.repeat(1, stacking.depth - 1, 1, 1)
    older = torch.where(stack_reset[:, None, None, None], padding, stacks[:, newest.shape[1] :])
    return torch.cat((older, newest), dim=1)
