"""PQN's hyperparameters as options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Interval

from agents.hyperparameters import ScheduleName
from agents.on_policy.config import RolloutHyperparameters
from rlcnn.config.fields import MAX_COUNT, Count, Fraction, NonNegative, never


@dataclass(frozen=True)
class PQNConfig(RolloutHyperparameters):
    """Hyperparameters of PQN (Gallici et al. 2024); steps are agent steps."""

    round_option: ClassVar[str] = "--pqn.n-steps"
    default_batch_size: ClassVar[int] = 128

    # Sources: "paper" is the authors' code, mttga/purejaxql, config/alg/pqn_atari.yaml, which has
    # 128 environments; "CleanRL" is pqn_atari_envpool.py, which has 8.
    learning_rate: NonNegative = 2.5e-4  # paper; CleanRL
    """RAdam's step size."""
    learning_rate_schedule: ScheduleName = "constant"  # paper; linear in CleanRL
    """"linear" anneals the learning rate to 0 over the run."""
    n_steps: Count = 32  # paper; 128 in CleanRL
    """Steps of each environment between two updates."""
    # Of 128 environments 32 minibatches: paper; of 256 transitions in CleanRL.
    batch_size: Annotated[int, Interval(ge=0, le=MAX_COUNT)] = 0
    """Transitions in a minibatch; must divide a rollout, which has num-envs x n-steps transitions.
    0 takes 128 if that divides the rollout, and otherwise a quarter of the rollout."""
    n_epochs: Count = 2  # paper; 4 in CleanRL
    """Passes over each rollout."""
    gamma: Fraction = 0.99  # paper; CleanRL
    """Discount factor."""
    q_lambda: Fraction = 0.65  # paper; CleanRL
    """Lambda of the returns: 0 bootstraps after one step, 1 at the end of the rollout."""
    exploration_fraction: Annotated[
        float, Interval(ge=0, le=1), never(0, "leaves no time to explore: expected more")
    ] = 0.1  # paper; CleanRL
    """Share of the run over which epsilon, the probability of a random action, falls."""
    exploration_initial_eps: Fraction = 1.0  # paper; CleanRL
    """Epsilon at the start."""
    exploration_final_eps: Fraction = 0.001  # paper; 0.01 in CleanRL
    """Epsilon at the end of that share."""
    max_grad_norm: NonNegative = 10.0  # paper; CleanRL
    """Largest gradient norm; longer gradients are scaled down to it."""
