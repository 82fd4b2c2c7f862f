"""PPO's hyperparameters as options."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Self

from annotated_types import Interval

from agents.hyperparameters import Hyperparameters, ScheduleName, round_up
from rlcnn.config.fields import MAX_COUNT, Count, Fraction, NonNegative, never

DEFAULT_BATCH_SIZE = 256  # rl-zoo; Schulman et al. 2017, table 5


@dataclass(frozen=True)
class PPOConfig(Hyperparameters):
    """Hyperparameters of PPO, under stable-baselines3's names."""

    round_name: ClassVar[str] = "rollouts"
    round_option: ClassVar[str] = "--ppo.n-steps"

    # Sources: "zoo" is rl-baselines3-zoo, hyperparams, section "atari"; "sb3" the default of
    # stable-baselines3 2.9, which the zoo keeps.
    learning_rate: NonNegative = 2.5e-4  # zoo; Schulman et al. 2017, table 5
    """Adam's step size."""
    learning_rate_schedule: ScheduleName = "linear"  # zoo; Schulman et al. 2017, table 5
    """"linear" anneals the learning rate to 0 over the run."""
    n_steps: Count = 128  # zoo; Schulman et al. 2017, table 5
    """Steps of each environment between two updates."""
    # Of 8 environments 256: zoo; Schulman et al. 2017, table 5.
    batch_size: Annotated[int, Interval(ge=0, le=MAX_COUNT)] = 0
    """Transitions in a minibatch; must divide num-envs x n-steps. 0 takes 256 where it does, and
    otherwise a quarter of them."""
    n_epochs: Count = 4  # zoo; 3 in Schulman et al. 2017
    """Passes over each rollout."""
    gamma: Fraction = 0.99  # sb3; Schulman et al. 2017, table 5
    """Discount factor."""
    gae_lambda: Fraction = 0.95  # sb3; Schulman et al. 2017, table 5
    """Lambda of generalised advantage estimation."""
    clip_range: NonNegative = 0.1  # zoo; Schulman et al. 2017, table 5
    """How far the probability ratio may leave 1 before its gain is clipped."""
    clip_range_schedule: ScheduleName = "linear"  # zoo; Schulman et al. 2017, table 5
    """"linear" anneals the clip range to 0 over the run."""
    clip_range_vf: Annotated[
        float | None,
        Interval(ge=0),
        never(0, "lets no value change: expected more, or None"),
    ] = None  # sb3
    """The same for value predictions, in units of return; None does not clip them."""
    normalize_advantage: bool = True  # sb3
    """Whether each minibatch's advantages are brought to mean 0 and deviation 1."""
    ent_coef: NonNegative = 0.01  # zoo; Schulman et al. 2017, table 5
    """Weight of the entropy bonus."""
    ent_coef_schedule: ScheduleName = "constant"  # zoo; Schulman et al. 2017, table 5
    """"linear" anneals the weight of the entropy bonus to 0 over the run."""
    vf_coef: NonNegative = 0.5  # zoo; 1 in Schulman et al. 2017
    """Weight of the value loss."""
    max_grad_norm: NonNegative = 0.5  # sb3
    """Largest gradient norm; longer gradients are scaled down to it."""
    target_kl: Annotated[float | None, Interval(ge=0)] = None  # sb3
    """Divergence at which an update stops early; None never stops."""

    def with_defaults(self, num_envs: int | None) -> Self:
        """The same with the default batch size as a number."""
        if self.batch_size:
            return self
        rollout = self.round_steps(num_envs or DEFAULT_BATCH_SIZE)
        if rollout % DEFAULT_BATCH_SIZE == 0:
            return replace(self, batch_size=DEFAULT_BATCH_SIZE)
        # Fewer minibatches where the rollout cannot be quartered, or a quarter has no spread.
        parts = (n for n in (4, 3, 2) if rollout % n == 0 and rollout >= 2 * n)
        return replace(self, batch_size=rollout // next(parts, 1))

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
