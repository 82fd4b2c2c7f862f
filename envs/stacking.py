"""How an observation is made of frames: the contract between environments and storage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stable_baselines3.common.vec_env import VecEnv


@dataclass(frozen=True)
class FrameStacking:
    """How an observation (depth * channels, height, width) is made of single frames.

    Attributes:
        depth: frames in one observation, oldest first.
        channels: channels of one frame, 1 (grey) or 3 (colour) for the environments here.
        padding: what stands in a fresh stack before its first frame: zeros, or that frame repeated.
    """

    depth: int
    channels: int
    padding: Literal["zeros", "repeat"] = "zeros"


def frame_stacking(venv: VecEnv) -> FrameStacking:
    """What ``venv`` says of its stacks; an environment that does not say is taken as unstacked."""
    if venv.has_attr("frame_stacking"):
        stacking = venv.get_attr("frame_stacking")[0]
        if not isinstance(stacking, FrameStacking):
            raise TypeError(f"frame_stacking must be a FrameStacking, not {type(stacking)}")
        return stacking
    shape = venv.observation_space.shape
    if shape is None or len(shape) != 3:
        raise ValueError(f"observations must be images (channels, height, width), not {shape}")
    return FrameStacking(depth=1, channels=shape[0])
