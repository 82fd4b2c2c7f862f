"""Scores of human and random play, to read an agent's score by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from envs.errors import UserError
from envs.registry import atari_rom

if TYPE_CHECKING:
    from rlcnn.stats.scores import Reference


def reference_scores(env_id: str) -> Reference | None:
    """Published scores in one of ALE's games; None if unknown, and for all other environments."""
    # Slow to import.
    from rlcnn.stats.scores import ATARI57

    try:
        return ATARI57.get(atari_rom(env_id))
    except UserError:
        return None
