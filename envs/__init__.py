"""Vectorised environments with image observations, and cameras that film them."""

from typing import TYPE_CHECKING

import envs.machine.openmp  # noqa: F401 - before torch, which reads its setting once
from envs.lazy import import_at_first_use

if TYPE_CHECKING:
    from envs.atari import AtariVecEnv
    from envs.atari_single import SingleAtariVecEnv
    from envs.config import EnvConfig
    from envs.errors import EnvironmentFailure, UserError
    from envs.films.camera import FilmResult, film_episode
    from envs.make import make_vec_env
    from envs.pixels import PixelVecEnv, make_pixel_vec_env
    from envs.protocol import PROTOCOLS, AtariProtocol, get_protocol
    from envs.stacking import FrameStacking, frame_stacking
else:
    __getattr__ = import_at_first_use(__name__)

__all__ = [
    "PROTOCOLS",
    "AtariProtocol",
    "AtariVecEnv",
    "EnvConfig",
    "EnvironmentFailure",
    "FilmResult",
    "FrameStacking",
    "PixelVecEnv",
    "SingleAtariVecEnv",
    "UserError",
    "film_episode",
    "frame_stacking",
    "get_protocol",
    "make_pixel_vec_env",
    "make_vec_env",
]
