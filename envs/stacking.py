"""How frames are stacked in an observation: the contract of environments and storage."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from gymnasium.wrappers import FrameStackObservation
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecFrameStack


@dataclass(frozen=True)
class FrameStacking:
    """How single frames are stacked in an observation (depth * channels, height, width).

    Attributes:
        depth: frames in one observation, oldest first.
        channels: channels of one frame, 1 (grey) or 3 (colour) for the environments here.
        padding: the frames before the first one in a new stack: zeros, or the first one repeated.
    """

    depth: int
    channels: int
    padding: Literal["zeros", "repeat"] = "zeros"


def frame_stacking(venv: VecEnv) -> FrameStacking:
    """The ``frame_stacking`` of ``venv``; without this attribute, frames are not stacked."""
    if venv.has_attr("frame_stacking"):
        stacking = venv.get_attr("frame_stacking")[0]
        if not isinstance(stacking, FrameStacking):
            raise TypeError(f"frame_stacking must be a FrameStacking, not {type(stacking)}")
        return stacking
    shape = venv.observation_space.shape
    if shape is None or len(shape) != 3:
        raise ValueError(f"observations must be images (channels, height, width), not {shape}")
    return FrameStacking(depth=1, channels=shape[0])


def frame_channels(venv: VecEnv) -> int | None:
    """Channels of one frame in the observations (channels, height, width) of ``venv``.

    It is known from ``frame_stacking``, stable-baselines3's ``VecFrameStack`` or Gymnasium's
    ``FrameStackObservation``.

    Returns:
        1 (grey), 3 (colour) or another count; None if it is unknown whether frames are stacked.
    """
    if venv.has_attr("frame_stacking"):
        return frame_stacking(venv).channels
    depths = []
    wrapper = venv
    while isinstance(wrapper, VecEnvWrapper):
        if isinstance(wrapper, VecFrameStack):
            depths.append(wrapper.stacked_obs.n_stack)
        wrapper = wrapper.venv
    if all(venv.env_is_wrapped(FrameStackObservation)) and venv.has_attr("stack_size"):
        depths.append(venv.get_attr("stack_size")[0])
    shape = venv.observation_space.shape
    depth = math.prod(depths)
    return shape[0] // depth if depths and shape and shape[0] % depth == 0 else None
