"""Checks at the door, and how one seed becomes many."""

import numpy as np
import pytest

from envs.checks import check_actions, check_count, check_observation, check_seed, derive_seeds
from envs.errors import UserError


def test_derived_seeds_are_repeatable_valid_and_shared_by_no_neighbours():
    families = [derive_seeds(seed, 64) for seed in range(50)]
    assert families[7] == derive_seeds(7, 64)
    assert families[7][:8] == derive_seeds(7, 8)
    every = [seed for family in families for seed in family]
    assert len(set(every)) == 50 * 64
    assert all(type(seed) is int and 0 <= seed < 2**31 for seed in every)


@pytest.mark.parametrize("seed", [-1, 2**31, 1.0, "1", None, False])
def test_invalid_seeds(seed):
    with pytest.raises(UserError, match=r"seed must be a whole number from 0 to 2147483647, not"):
        check_seed(seed)


def test_numpy_integers_become_pythons():
    assert type(check_seed(np.int32(4))) is int
    assert type(check_count("n", np.uint8(4), 1)) is int


@pytest.mark.parametrize(("obs", "channels"), [("grey", 1), ("rgb", 3)])
def test_channels_of_a_frame(obs, channels):
    assert check_observation(obs, 84, 4) == channels
    assert check_observation(obs, 4 * channels, 4) == channels
    with pytest.raises(UserError, match=f"choose an obs_size of at least {4 * channels}"):
        check_observation(obs, 4 * channels - 1, 4)


def test_valid_actions_become_int64():
    actions = check_actions(np.array([0, 3], np.uint8), 2, 4)
    assert (actions.dtype, actions.tolist()) == (np.int64, [0, 3])


@pytest.mark.parametrize("wrong", [[0, 4], [-1, 0], [[0], [0]], [0], [0.0, 1.0], [True, False]])
def test_invalid_actions(wrong):
    with pytest.raises(UserError, match="actions must be"):
        check_actions(np.array(wrong), 2, 4)
