"""Worlds: pixel environments, vectorised, and the cameras that film them."""

from envs.atari import AtariVecEnv
from envs.errors import UserError
from envs.make import make_vec_env
from envs.protocol import PROTOCOLS, AtariProtocol, get_protocol
from envs.stacking import FrameStacking, frame_stacking

__all__ = [
    "PROTOCOLS",
    "AtariProtocol",
    "AtariVecEnv",
    "FrameStacking",
    "UserError",
    "frame_stacking",
    "get_protocol",
    "make_vec_env",
]
