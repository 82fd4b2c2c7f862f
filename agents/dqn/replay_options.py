"""How DQN draws its batches from the replay, as options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rlcnn.config.fields import Fraction, NonNegative


@dataclass(frozen=True)
class ReplayOptions:
    """Options of the sampler, and of what happens to its batches."""

    prioritized: bool = False
    """Whether transitions with large errors are drawn more often, and count less in the loss for it
    (Schaul et al. 2016)."""
    priority_alpha: Fraction = 0.6
    """Exponent of priorities (Schaul et al. 2016): 0.5 in Rainbow, 0.2 in BTR; 0 draws
    uniformly."""
    priority_beta_initial: Fraction = 0.4
    """Exponent of importance weights at the start of the run (Schaul et al. 2016)."""
    priority_beta_final: Fraction = 1.0
    """Exponent of importance weights at the end of the run, reached linearly (Schaul et al. 2016);
    with 1 the weights correct the draws in full."""
    priority_uniform_share: Fraction = 0.001
    """Share of draws that are uniform, whatever the priorities: 0.001 in dqn_zoo, 0 in the
    paper."""
    priority_epsilon: NonNegative = 0.0
    """Added to every priority: 0 in dqn_zoo, 1e-6 in CleanRL."""
    augment: Literal["none", "drq"] = "none"
    """Augmentation of batches: drq shifts images by up to 4 pixels and varies their intensity
    (Kostrikov et al. 2021)."""

    @property
    def augments(self) -> bool:
        """Whether batches are augmented."""
        return self.augment != "none"
