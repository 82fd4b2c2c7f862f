"""PPO's hyperparameters as options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Interval

from agents.hyperparameters import ScheduleName
from agents.on_policy.config import RolloutHyperparameters
from agents.ppo.adaptive_rate import HIGHEST_RATE, LOWEST_RATE, rate_in_bounds
from envs.errors import UserError
from rlcnn.config.fields import MAX_COUNT, Count, Fraction, NonNegative, never

ADAM_EPS = 1e-5  # of stable-baselines3's actor-critic policies


@dataclass(frozen=True)
class PPOConfig(RolloutHyperparameters):
    """Hyperparameters of PPO, under stable-baselines3's names."""

    round_option: ClassVar[str] = "--ppo.n-steps"
    default_batch_size: ClassVar[int] = 256  # zoo; Schulman et al. 2017, table 5

    # Sources: "zoo" is rl-baselines3-zoo, hyperparams, section "atari"; "sb3" the default of
    # stable-baselines3 2.9, which the zoo keeps.
    learning_rate: NonNegative = 2.5e-4  # zoo; Schulman et al. 2017, table 5
    """Adam's step size."""
    learning_rate_schedule: Literal["constant", "linear", "adaptive"] = "linear"  # zoo
    """"linear" anneals the learning rate to 0 over the run (Schulman et al. 2017, table 5);
    "adaptive" changes it by --ppo.kl-threshold."""
    kl_threshold: Annotated[float | None, Interval(gt=0)] = None
    """KL divergence that the adaptive learning rate keeps to: after an update, the rate is divided
    by 1.5 above twice the threshold and multiplied by 1.5 below half of it, within 1e-6 and 1e-2
    (rl_games, which does so after each epoch)."""
    adam_eps: Annotated[float, Interval(gt=0)] = ADAM_EPS  # sb3
    """Adam's epsilon; 1e-8 in rl_games."""
    n_steps: Count = 128  # zoo; Schulman et al. 2017, table 5
    """Steps of each environment between two updates."""
    # Of 8 environments 256: zoo; Schulman et al. 2017, table 5.
    batch_size: Annotated[int, Interval(ge=0, le=MAX_COUNT)] = 0
    """Transitions in a minibatch; must divide a rollout, which has num-envs x n-steps transitions.
    0 takes 256 if that divides the rollout, and otherwise a quarter of the rollout."""
    n_epochs: Count = 4  # zoo; 3 in Schulman et al. 2017
    """Passes over each rollout."""
    gamma: Fraction = 0.99  # sb3; Schulman et al. 2017, table 5
    """Discount factor."""
    gae_lambda: Fraction = 0.95  # sb3; Schulman et al. 2017, table 5
    """Lambda of generalised advantage estimation."""
    clip_range: NonNegative = 0.1  # zoo; Schulman et al. 2017, table 5
    """How far the ratio of new to old probability may leave 1 before its gain is clipped."""
    clip_range_schedule: ScheduleName = "linear"  # zoo; Schulman et al. 2017, table 5
    """"linear" anneals the clip range to 0 over the run."""
    clip_range_vf: Annotated[
        float | None,
        Interval(ge=0),
        never(0, "lets no value change: expected more, or None"),
    ] = None  # sb3
    """How far a value prediction may move in an update before it is clipped, in units of return, or
    of their deviation with --ppo.normalize-value; None does not clip."""
    normalize_advantage: bool = True  # sb3
    """Whether the advantages of each minibatch are scaled to mean 0 and standard deviation 1."""
    ent_coef: NonNegative = 0.01  # zoo; Schulman et al. 2017, table 5
    """Weight of the entropy bonus."""
    ent_coef_schedule: ScheduleName = "constant"  # zoo; Schulman et al. 2017, table 5
    """"linear" anneals the weight of the entropy bonus to 0 over the run."""
    vf_coef: NonNegative = 0.5  # zoo; 1 in Schulman et al. 2017
    """Weight of the value loss."""
    normalize_value: bool = False
    """Whether the value head learns returns in deviations from their running mean, as in rl_games;
    values are in units of return wherever they are used."""
    max_grad_norm: NonNegative = 0.5  # sb3
    """Largest gradient norm; longer gradients are scaled down to it."""
    target_kl: Annotated[float | None, Interval(ge=0)] = None  # sb3
    """KL divergence from the policy before the update at which the update stops early; None never
    stops it early."""

    @property
    def in_baseline(self) -> bool:
        return not self.normalize_value and self.learning_rate_schedule != "adaptive"

    def check_together(self) -> None:
        adapts = self.learning_rate_schedule == "adaptive"
        if adapts and self.kl_threshold is None:
            raise UserError(
                "--ppo.learning-rate-schedule adaptive needs --ppo.kl-threshold, such as 0.01"
            )
        if not adapts and self.kl_threshold is not None:
            raise UserError(
                f"--ppo.kl-threshold {self.kl_threshold:g} is for --ppo.learning-rate-schedule"
                f" adaptive, not {self.learning_rate_schedule}"
            )
        if adapts and not rate_in_bounds(self.learning_rate):
            raise UserError(
                f"--ppo.learning-rate {self.learning_rate:g} cannot be adaptive: expected"
                f" {LOWEST_RATE:g} to {HIGHEST_RATE:g}"
            )
