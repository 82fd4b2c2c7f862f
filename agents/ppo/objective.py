"""What PPO minimises: the clipped surrogate objective, a pure function of a minibatch."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.nn import functional

from agents.networks.policies import PixelActorCriticPolicy
from agents.storage.rollout import RolloutBatch
from rlcnn.encoders.running_moments import LIMIT

METRICS = (
    "loss",
    "policy_gradient_loss",
    "value_loss",
    "entropy_loss",
    "approx_kl",
    "clip_fraction",
)


class Coefficients(NamedTuple):
    """What may change between updates: float32 scalars, in place, as captured code reads them."""

    clip_range: torch.Tensor
    clip_range_vf: torch.Tensor
    ent_coef: torch.Tensor


class PPOObjective(NamedTuple):
    """The objective's constants, under stable-baselines3's names.

    If the policy normalises values, the value loss is of normalised values and returns, and returns
    beyond 5 deviations are cut off, as in rl_games.
    """

    normalize_advantage: bool  # to mean 0 and deviation 1 in each minibatch
    clip_values: bool  # whether the change of values is clipped, too
    vf_coef: float  # weight of the value loss

    def loss(
        self, policy: PixelActorCriticPolicy, batch: RolloutBatch, coefficients: Coefficients
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss (Schulman et al. 2017, equation 9), float32 scalar, and ``METRICS``, float32."""
        clip_range, clip_range_vf, ent_coef = coefficients
        values, log_prob, entropy = policy.evaluate_actions(batch.observations, batch.actions)
        values = values.flatten()
        advantages = batch.advantages
        if self.normalize_advantage and len(advantages) > 1:
            advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)

        log_ratio = log_prob - batch.old_log_prob
        ratio = log_ratio.exp()
        clipped_ratio = ratio.clamp(1 - clip_range, 1 + clip_range)
        policy_loss = -torch.min(advantages * ratio, advantages * clipped_ratio).mean()

        old_values, returns = batch.old_values, batch.returns
        if (moments := policy.return_moments) is not None:
            values, old_values, returns = map(moments.normalise, (values, old_values, returns))
            returns = returns.clamp(-LIMIT, LIMIT)
        if self.clip_values:
            values = old_values + (values - old_values).clamp(-clip_range_vf, clip_range_vf)
        value_loss = functional.mse_loss(returns, values)
        entropy_loss = -entropy.mean()
        loss = policy_loss + ent_coef * entropy_loss + self.vf_coef * value_loss

        with torch.no_grad():
            # The low-variance estimator of the divergence: (r - 1) - log r.
            approx_kl = (ratio - 1 - log_ratio).mean()
            clip_fraction = ((ratio - 1).abs() > clip_range).float().mean()
            metrics = (loss, policy_loss, value_loss, entropy_loss, approx_kl, clip_fraction)
            return loss, torch.stack(metrics)
