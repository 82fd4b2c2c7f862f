"""Seeds for the different uses of one run's seed, so that none shares another's games."""

from __future__ import annotations

from typing import Literal

import numpy as np

Purpose = Literal["train", "evaluate", "evaluate_during_training", "film"]
_PURPOSES: tuple[Purpose, ...] = ("train", "evaluate", "evaluate_during_training", "film")
_SPAN = 2**31 // len(_PURPOSES)


def derive_seed(seed: int, purpose: Purpose, step: int = 0) -> int:
    """The seed of one use at one step of a run, at least 0 and below 2**31.

    Each purpose has a range of seeds to itself, so none ever takes another's. Within it, seed and
    step choose (numpy's ``SeedSequence``). The games of a vector of environments are seeded by
    hashing this seed once more: two games of different purposes start alike by chance only, as
    two numbers of 31 bits are equal.

    Args:
        seed: the run's.
        purpose: what it is for.
        step: the agent step at which the environments start, so that a resumed run plays new
            games rather than the first ones again.
    """
    place = int(np.random.SeedSequence([seed, step]).generate_state(1)[0]) % _SPAN
    return _PURPOSES.index(purpose) * _SPAN + place
