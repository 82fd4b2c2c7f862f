"""DQN's hyperparameters as options."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Self

from annotated_types import Interval

from agents.dqn.variant import DQNVariant
from agents.hyperparameters import Hyperparameters, ScheduleName, round_up
from envs.errors import UserError
from rlcnn.config.fields import MAX_COUNT, Count, Fraction, NonNegative, never

# Training can stop after any step: the fewest to time at once.
_FEWEST_TIMED_STEPS = 200


@dataclass(frozen=True)
class DQNConfig(DQNVariant, Hyperparameters):
    """Hyperparameters of DQN, under stable-baselines3's names; steps are agent steps."""

    round_name: ClassVar[str] = "rounds"
    round_option: ClassVar[str] = "--dqn.train-freq"

    # Sources: "zoo" is rl-baselines3-zoo, hyperparams, section "atari"; "sb3" the default of
    # stable-baselines3 2.9, which the zoo keeps.
    learning_rate: NonNegative = 1e-4  # zoo
    """Adam's step size."""
    learning_rate_schedule: ScheduleName = "constant"  # zoo
    """"linear" anneals the learning rate to 0 over the run."""
    buffer_size: Count = 100_000  # zoo; 1,000,000 in Mnih et al. 2015
    """Transitions kept for replay, over all environments."""
    learning_starts: Annotated[int, Interval(ge=0)] = 100_000  # zoo; 50,000 in Mnih et al. 2015
    """Steps of random play before the first update."""
    batch_size: Count = 32  # zoo; Mnih et al. 2015, extended data table 1
    """Transitions in a minibatch."""
    tau: Fraction = 1.0  # sb3
    """Share of the online network in each update of the target network; 1 copies it."""
    gamma: Fraction = 0.99  # sb3; Mnih et al. 2015, extended data table 1
    """Discount factor."""
    train_freq: Count = 4  # zoo; Mnih et al. 2015, extended data table 1
    """Environment steps (over all environments) for each round of updates."""
    gradient_steps: Annotated[
        int,
        Interval(ge=-1, le=MAX_COUNT),
        never(0, "learns nothing: expected at least 1, or -1"),
    ] = 1  # zoo
    """Updates in a round; -1 makes as many as the round has steps."""
    n_steps: Count = 1  # sb3; Mnih et al. 2015
    """Rewards summed before bootstrapping (n-step returns)."""
    target_update_interval: Count = 1_000  # zoo; 10,000 updates in Mnih et al. 2015
    """Environment steps between two updates of the target network."""
    exploration_fraction: Annotated[
        float, Interval(ge=0, le=1), never(0, "leaves no time to explore: expected more")
    ] = 0.1  # zoo: 1,000,000 steps of its run; so in Mnih et al. 2015
    """Share of the run over which epsilon, the probability of a random action, falls."""
    exploration_initial_eps: Fraction = 1.0  # sb3; Mnih et al. 2015, extended data table 1
    """Epsilon at the start."""
    exploration_final_eps: Fraction = 0.01  # zoo; 0.1 in Mnih et al. 2015
    """Epsilon once it has fallen."""
    max_grad_norm: NonNegative = 10.0  # sb3
    """Largest gradient norm; longer gradients are scaled down to it."""

    @property
    def in_baseline(self) -> bool:
        parts = (self.double, self.munchausen, self.prioritized, self.augments)
        return self.plain and self.loss == "huber" and not any(parts)

    @property
    def warm_up_steps(self) -> int:
        return self.learning_starts

    @property
    def samples_per_step(self) -> float:
        """Samples of all minibatches of a round, for each of its steps."""
        updates = 1.0 if self.gradient_steps == -1 else self.gradient_steps / self.train_freq
        return updates * self.batch_size

    def check_training(self, num_envs: int, frozen: bool) -> None:
        if self.buffer_size < num_envs:
            raise UserError(
                f"--dqn.buffer-size {self.buffer_size} has no room for a transition of each of"
                f" {num_envs} environments: expected at least {num_envs}"
            )
        if frozen and self.augments:
            raise UserError(
                f"--dqn.augment {self.augment} needs pixels, but the features of a frozen encoder"
                " are stored: leave one of them out"
            )

    def round_steps(self, num_envs: int) -> int:
        return round_up(self.train_freq, num_envs)

    def timed_steps(self, num_envs: int) -> int:
        return round_up(_FEWEST_TIMED_STEPS, math.lcm(num_envs, self.train_freq))

    def last_step(self, total_steps: int, num_envs: int, step: int) -> int:
        """The step of the vector that reaches ``total_steps``, or the end of its round."""
        end = step + round_up(total_steps - step, num_envs)
        round_end = round_up(total_steps, self.train_freq)
        if end - num_envs >= round_end - self.train_freq:
            # The round under way is finished.
            end = step + round_up(round_end - step, num_envs)
        return end

    def notes(self, end: int, step: int, stored_steps: int) -> list[str]:
        """A line where no update comes before the end."""
        starts = step + max(0, self.learning_starts - stored_steps)
        if end // self.train_freq > starts // self.train_freq:
            return []
        return [
            f"nothing is learned in this training: it ends at step {end:,}, and DQN's updates"
            f" start after step {starts:,} (--dqn.learning-starts {self.learning_starts})."
            " Give more --total-steps, or fewer --dqn.learning-starts"
        ]

    def with_short_warm_up(self, num_envs: int) -> Self:
        """The same updates from a small replay that fills quickly."""
        least = max(self.timed_steps(num_envs), self.batch_size + self.n_steps)
        room = max(min(self.buffer_size, 20_000), 2 * least)
        return replace(self, learning_starts=least, buffer_size=room)

    def in_vector_steps(self, num_envs: int) -> Self:
        """As many updates for each environment step, in rounds of whole steps of the vector."""
        steps = math.lcm(self.train_freq, num_envs)
        updates = self.gradient_steps
        return replace(
            self,
            train_freq=steps // num_envs,
            gradient_steps=updates if updates == -1 else steps // self.train_freq * updates,
        )

    def describe(self, environments: str) -> str:
        """Such as ``1 environments, 1 updates of 32 in 4 steps``."""
        updates = f"{self.gradient_steps} updates of {self.batch_size}"
        return f"{environments}, {updates} in {self.train_freq} steps"
