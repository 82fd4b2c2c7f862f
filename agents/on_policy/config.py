"""Hyperparameters of algorithms that learn from rollouts: what follows from their sizes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Self

from agents.hyperparameters import Hyperparameters, round_up


@dataclass(frozen=True)
class RolloutHyperparameters(Hyperparameters):
    """Base of the sections of options with ``n_steps``, ``n_epochs`` and ``batch_size``.

    ``default_batch_size`` is taken where it divides a rollout.
    """

    round_name: ClassVar[str] = "rollouts"
    default_batch_size: ClassVar[int]

    if TYPE_CHECKING:
        # Fields of the subclasses, each with its own default and source.
        n_steps: int
        n_epochs: int
        batch_size: int

    def with_defaults(self, num_envs: int | None) -> Self:
        """The same with the default batch size as a number."""
        if self.batch_size:
            return self
        rollout = self.round_steps(num_envs or self.default_batch_size)
        if rollout % self.default_batch_size == 0:
            return replace(self, batch_size=self.default_batch_size)
        # Fewer minibatches where the rollout cannot be quartered, or a quarter has no spread.
        parts = (n for n in (4, 3, 2) if rollout % n == 0 and rollout >= 2 * n)
        return replace(self, batch_size=rollout // next(parts, 1))

    def without_learning(self) -> Self:
        return replace(self, n_steps=2, batch_size=2)

    @property
    def samples_per_step(self) -> float:
        """Every transition is a sample once in each epoch."""
        return self.n_epochs

    def round_steps(self, num_envs: int) -> int:
        return num_envs * self.n_steps

    def last_step(self, total_steps: int, num_envs: int, step: int) -> int:
        return step + round_up(total_steps - step, self.round_steps(num_envs))

    def describe(self, environments: str) -> str:
        """Such as ``8 environments x 128 steps, 4 epochs of minibatches of 256``."""
        epochs = f"{self.n_epochs} epochs of minibatches of {self.batch_size}"
        return f"{environments} x {self.n_steps} steps, {epochs}"
