"""Epsilon-greedy exploration, with a coin for every environment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np


class EpsilonGreedy:
    """Replaces greedy actions by random ones, from its own generator ``rng``."""

    def __init__(self, n_actions: int, seed: np.random.SeedSequence) -> None:
        self._n_actions = n_actions
        self.rng = np.random.default_rng(seed)

    def draw(self, shape: tuple[int, ...], epsilon: float | np.ndarray) -> np.ndarray:
        """Actions int64 of a shape, each random with probability ``epsilon`` and otherwise -1.

        ``epsilon`` is one for all actions, or float64 of their shape.
        """
        # Both are always drawn, so that every step draws equally much.
        coins = self.rng.random(shape) < epsilon
        return np.where(coins, self.rng.integers(self._n_actions, size=shape), -1)

    def choose(
        self,
        shape: tuple[int, ...],
        epsilon: float | np.ndarray,
        greedy: Callable[[], np.ndarray],
    ) -> np.ndarray:
        """Actions int64 of a shape, each random with probability ``epsilon``; see :meth:`draw`.

        ``greedy`` computes the others, of the same shape; it is not called if all are random.
        """
        drawn = self.draw(shape, epsilon)
        return drawn if np.all(drawn >= 0) else np.where(drawn >= 0, drawn, greedy())


def explored(exploration: EpsilonGreedy, actions: np.ndarray, epsilon: float) -> np.ndarray:
    """Actions int64, each of which a random one replaces with probability ``epsilon``."""
    return exploration.choose(actions.shape, epsilon, lambda: actions)


class Exploring(Protocol):
    """An agent that explores by epsilon, scheduled over its training.

    ``exploration_limit`` is an upper bound of epsilon; in an extended run, epsilon where it
    continues.
    """

    num_timesteps: int
    exploration: EpsilonGreedy
    exploration_rate: float
    exploration_limit: float
    exploration_initial_eps: float
    exploration_final_eps: float

    def scheduled_epsilon(self, progress_remaining: float, total_timesteps: int) -> float: ...


def exploration_state(model: Exploring) -> dict[str, Any]:
    """What the next random actions depend on, as JSON values."""
    return {
        "exploration_rng": model.exploration.rng.bit_generator.state,
        "exploration_rate": model.exploration_rate,
    }


def restore_exploration(model: Exploring, state: dict[str, Any]) -> None:
    """Takes over what :func:`exploration_state` returned; epsilon never rises again."""
    model.exploration.rng.bit_generator.state = state["exploration_rng"]
    falls = model.exploration_final_eps <= model.exploration_initial_eps
    # Older checkpoints do not hold it, and an agent that never learned has none.
    if falls and model.num_timesteps and "exploration_rate" in state:
        model.exploration_limit = float(state["exploration_rate"])


def notes_on_exploration(model: Exploring, total_steps: int) -> list[str]:
    """A line where the schedule of a longer run would raise epsilon."""
    remaining = max(0.0, 1 - model.num_timesteps / total_steps)
    scheduled = model.scheduled_epsilon(remaining, total_steps)
    if scheduled <= model.exploration_limit:
        return []
    return [
        f"epsilon stays at {model.exploration_limit:.3g}: the schedule of the longer run would"
        f" raise it to {scheduled:.3g}"
    ]
