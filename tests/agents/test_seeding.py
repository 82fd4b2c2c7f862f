"""Seeds of the different uses of one run's seed."""

from __future__ import annotations

from itertools import combinations, product
from typing import get_args

import pytest
from support.property_tests import given, st

from agents.seeding import Purpose, derive_seed
from rlcnn.config.fields import MAX_SEED

PURPOSES: tuple[Purpose, ...] = get_args(Purpose)
SEEDS = st.integers(0, MAX_SEED)
STEPS = st.integers(0, 10**12)


@given(seed=SEEDS, step=STEPS, purpose=st.sampled_from(PURPOSES))
def test_a_derived_seed_is_one_that_environments_take_and_always_the_same(
    seed: int, step: int, purpose: Purpose
) -> None:
    derived = derive_seed(seed, purpose, step)
    assert 0 <= derived < 2**31
    assert derive_seed(seed, purpose, step) == derived


@given(one=st.tuples(SEEDS, STEPS), other=st.tuples(SEEDS, STEPS))
def test_no_purpose_ever_takes_anothers_seed(one: tuple[int, int], other: tuple[int, int]) -> None:
    for first, second in combinations(PURPOSES, 2):
        derived = derive_seed(one[0], first, one[1]), derive_seed(other[0], second, other[1])
        assert derived[0] // 2**29 != derived[1] // 2**29


@pytest.mark.parametrize("purpose", PURPOSES)
def test_seeds_and_steps_give_different_games(purpose: Purpose) -> None:
    uses = product(range(100), range(0, 1000, 10))
    derived = {derive_seed(seed, purpose, step) for seed, step in uses}
    # Of 10,000 draws from 2**29, a collision or so is chance.
    assert len(derived) > 9_995
