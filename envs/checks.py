"""Checks of arguments, shared by all environments."""

from __future__ import annotations

from numbers import Integral
from typing import Literal, get_args

import numpy as np

from envs.errors import UserError, nearest

ObservationColour = Literal["grey", "rgb"]

SEED_LIMIT = 2**31


def check_count(name: str, value: int, minimum: int) -> int:
    """``value`` as a Python int.

    Raises:
        UserError: it is not a whole number, or below ``minimum``.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < minimum:
        raise UserError(f"{name} must be a whole number of at least {minimum}, not {value!r}")
    return int(value)


def check_seed(seed: int) -> int:
    """``seed`` as a Python int, 0 <= seed < 2**31, the range of ale-py.

    Raises:
        UserError: it is outside.
    """
    if isinstance(seed, bool) or not isinstance(seed, Integral) or not 0 <= seed < SEED_LIMIT:
        raise UserError(f"seed must be a whole number from 0 to {SEED_LIMIT - 1}, not {seed!r}")
    return int(seed)


def derive_seeds(seed: int | None, count: int) -> list[int]:
    """One seed for each environment; ``seed``: 0 <= seed < 2**31, None draws one from numpy.

    numpy's ``SeedSequence`` mixes them. With ``seed``, ``seed + 1`` ... two runs with neighbouring
    seeds would share nearly all games.

    Raises:
        UserError: the seed is not in that range.
    """
    if seed is None:
        seed = int(np.random.randint(2**31 - 1))
    state = np.random.SeedSequence(check_seed(seed)).generate_state(count)
    return [int(word) % SEED_LIMIT for word in state]


def check_observation(obs: ObservationColour, obs_size: int, frame_stack: int) -> int:
    """Checks three options and returns the channels of one frame, 1 or 3.

    Raises:
        UserError: an option is not valid, or stable-baselines3 would mistake the observations for
            channels-last.
    """
    choices = get_args(ObservationColour)
    if obs not in choices:
        expected = ", ".join(choices)
        hint = nearest(str(obs), choices)
        raise UserError(f'unknown obs "{obs}": expected one of {expected}.{hint}')
    channels = 1 if obs == "grey" else 3
    obs_size = check_count("obs_size", obs_size, 1)
    stacked = channels * check_count("frame_stack", frame_stack, 1)
    if obs_size < stacked:
        # stable-baselines3 takes the smallest axis for the channels and transposes.
        raise UserError(
            f"obs_size {obs_size} is smaller than the {stacked} channels of {frame_stack} "
            f"{obs} frames: choose an obs_size of at least {stacked}"
        )
    return channels


def check_actions(actions: np.ndarray, num_envs: int, num_actions: int) -> np.ndarray:
    """``actions`` as int64 (num_envs,).

    Raises:
        UserError: wrong shape, not integers, or outside 0..num_actions-1. For such an action ale-py
            itself would wait for ever.
    """
    actions = np.asarray(actions)
    if actions.shape != (num_envs,) or actions.dtype.kind not in "iu":
        raise UserError(
            f"actions must be integers of shape ({num_envs},), "
            f"not {actions.dtype} of shape {actions.shape}"
        )
    if actions.min() < 0 or actions.max() >= num_actions:
        raise UserError(f"actions must be within 0..{num_actions - 1}, not {actions.tolist()}")
    return actions.astype(np.int64, copy=False)
