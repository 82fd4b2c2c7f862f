"""Stacks rebuilt from single frames."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch

from agents.storage.stacking import stack_frames
from envs.stacking import FrameStacking


@pytest.mark.parametrize("padding", ["zeros", "repeat"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_every_stack_of_a_ring_is_what_its_frames_in_stack_say(
    depth: int, channels: int, padding: Literal["zeros", "repeat"]
) -> None:
    rows, envs = 9, 2
    rng = np.random.default_rng(0)
    frames = rng.integers(1, 256, (rows, envs, channels, 2, 3), dtype=np.uint8)
    frames_in_stack = rng.integers(0, depth, (rows, envs), dtype=np.uint8)

    row, env = (grid.flatten() for grid in np.meshgrid(np.arange(rows), np.arange(envs)))
    stacking = FrameStacking(depth, channels, padding)
    tensors = (torch.from_numpy(array) for array in (frames, frames_in_stack, row, env))
    stacks = stack_frames(*tensors, stacking)

    assert stacks.dtype == torch.uint8
    for r, e, stack in zip(row, env, stacks, strict=True):
        expected = []
        for back in range(depth - 1, -1, -1):
            if back <= frames_in_stack[r, e]:
                expected.append(frames[(r - back) % rows, e])
            elif padding == "repeat":
                expected.append(frames[(r - frames_in_stack[r, e]) % rows, e])
            else:
                expected.append(np.zeros_like(frames[0, 0]))
        assert np.array_equal(stack.numpy(), np.concatenate(expected))


def test_a_stack_is_the_callers_own() -> None:
    frames = torch.zeros((3, 1, 1, 2, 2), dtype=torch.uint8)
    frames_in_stack = torch.zeros((3, 1), dtype=torch.uint8)
    index = torch.zeros(1, dtype=torch.int64)
    stack = stack_frames(frames, frames_in_stack, index, index, FrameStacking(1, 1))
    stack += 1
    assert not frames.any()
