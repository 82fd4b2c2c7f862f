"""How episodes end, as an environment reports it with a step."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class EpisodeEnds(NamedTuple):
    """What one step of every environment ended; each bool (environments,)."""

    terminated: np.ndarray  # no value beyond: a real end or a lost life
    truncated: np.ndarray  # cut off by a time limit
    stack_reset: np.ndarray  # the stack starts anew; after a lost life it does not


def read_ends(dones: np.ndarray, infos: list[dict[str, Any]]) -> EpisodeEnds:
    """Reads ``TimeLimit.truncated`` and ``life_loss`` of the environments that are done."""
    ends = EpisodeEnds(dones.copy(), np.zeros_like(dones), dones.copy())
    for env in np.flatnonzero(dones):
        ends.truncated[env] = infos[env].get("TimeLimit.truncated", False)
        ends.terminated[env] = not ends.truncated[env]
        ends.stack_reset[env] = not infos[env].get("life_loss", False)
    return ends
