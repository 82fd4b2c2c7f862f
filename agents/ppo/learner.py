"""PPO's update."""

from __future__ import annotations

import torch

from agents.networks.policies import PixelActorCriticPolicy
from agents.on_policy.learner import RolloutLearner
from agents.ppo.objective import METRICS, Coefficients, PPOObjective
from agents.storage.rollout import FrameRollout, RolloutBatch


class PPOLearner(RolloutLearner):
    """Learns from rollouts; the arguments beside those of the base class:

    Args:
        objective: what is minimised.
        target_kl: a divergence that ends an update when exceeded by half; if it is set, every
            minibatch waits for the device, and none is captured.
    """

    metrics = METRICS
    policy: PixelActorCriticPolicy

    def __init__(
        self,
        policy: PixelActorCriticPolicy,
        objective: PPOObjective,
        max_grad_norm: float,
        target_kl: float | None = None,
        *,
        compiled: bool = False,
        graphs: bool = False,
    ) -> None:
        self.settings = (objective, max_grad_norm, target_kl)
        self._objective, self._target_kl = objective, target_kl
        self._coefficients = Coefficients(
            *(torch.zeros((), device=policy.device) for _ in Coefficients._fields)
        )
        graphs = graphs and target_kl is None
        super().__init__(policy, max_grad_norm, compiled=compiled, graphs=graphs)

    def set_coefficients(self, **values: float) -> None:
        """Sets how the next update clips, and the weight of its entropy bonus, by name."""
        for name, tensor in self._coefficients._asdict().items():
            tensor.fill_(values[name])

    def take_returns(self, rollout: FrameRollout) -> None:
        if (moments := self.policy.return_moments) is not None:
            returns = rollout.returns.double()
            variance, mean = torch.var_mean(returns, correction=0)
            moments.merge(mean, variance, returns.numel())

    def loss(self, batch: RolloutBatch) -> tuple[torch.Tensor, torch.Tensor]:
        return self._objective.loss(self.policy, batch, self._coefficients)

    def ends_update(self, metrics: torch.Tensor) -> bool:
        if self._target_kl is None:
            return False
        return bool(metrics[METRICS.index("approx_kl")] > 1.5 * self._target_kl)

    def summary(self, metrics: list[torch.Tensor], epoch_began: int) -> torch.Tensor:
        means = super().summary(metrics, epoch_began)
        # Over the last epoch's minibatches only, as in stable-baselines3.
        kl = METRICS.index("approx_kl")
        means[kl] = torch.stack(metrics[epoch_began:])[:, kl].mean()
        return means
