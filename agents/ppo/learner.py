"""PPO's update: epochs of minibatches, each one function that never waits for the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch

from agents.networks.policies import PixelActorCriticPolicy
from agents.ppo.objective import METRICS, Coefficients, PPOObjective
from agents.storage.rollout import FrameRollout, RolloutBatch
from rlcnn.accelerate.compilation import Compiled
from rlcnn.accelerate.cuda_graphs import Graphed, make_recorder, parameters_and_buffers
from rlcnn.accelerate.gradient_step import (
    can_capture_steps,
    gradient_step,
    keep_rates_on_device,
    optimizer_tensors,
    parameter_norm,
)

FIGURES = (*METRICS, "grad_norm", "explained_variance", "param_norm")
"""What an update reports, by name. The norms are of all gradients and all parameters as one vector;
that of the gradients is a mean over minibatches, before clipping."""


class UpdateReport(NamedTuple):
    """The result of an update."""

    figures: torch.Tensor  # FIGURES, float32; METRICS are means over its minibatches
    epochs: int  # begun, whether or not ``target_kl`` ended them


class PPOLearner:
    """Learns from rollouts, minibatch by minibatch, by the policy's own optimiser.

    What changes from one update to the next is in tensors, filled in place: compiled code does not
    treat them as constants, and captured code reads them anew.

    Args:
        policy: on its device.
        objective: what is minimised.
        max_grad_norm: largest gradient norm.
        target_kl: a divergence that ends an update when exceeded by half; if it is set, every
            minibatch waits for the device, and none is captured.
        compiled: whether the loss is compiled (:class:`~rlcnn.accelerate.compilation.Compiled`).
        graphs: whether a minibatch is captured as a graph, where the device has graphs.
    """

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
        self.policy = policy
        self.settings = (objective, max_grad_norm, target_kl)
        self._objective, self._max_grad_norm, self._target_kl = self.settings
        self._coefficients = Coefficients(
            *(torch.zeros((), device=policy.device) for _ in Coefficients._fields)
        )
        self._loss: Callable[[RolloutBatch], tuple[torch.Tensor, torch.Tensor]] = (
            Compiled(self.loss, "update") if compiled else self.loss
        )
        capture = graphs and target_kl is None and can_capture_steps(policy.optimizer)
        self._recorder = make_recorder(policy.device, capture)
        self._minibatches: dict[FrameRollout, Graphed[torch.Tensor]] = {}
        self._network = parameters_and_buffers(policy)

    def set_coefficients(self, **values: float) -> None:
        """Sets how the next update clips, and the weight of its entropy bonus, by name."""
        for name, tensor in self._coefficients._asdict().items():
            tensor.fill_(values[name])
        if self._recorder is not None:
            # Loading a checkpoint replaces the optimiser's rates.
            keep_rates_on_device(self.policy.optimizer)

    def ready(self, rollout: FrameRollout, batch_size: int) -> bool:
        """Whether an update by such minibatches has nothing left to capture."""
        indices = torch.empty(batch_size, dtype=torch.int64, device=rollout.device)
        return self._minibatch_of(rollout).ready(indices)

    def update(
        self,
        rollout: FrameRollout,
        orders: list[torch.Tensor],
        batch_size: int,
        between: Callable[[], object] = lambda: None,
    ) -> UpdateReport:
        """Learns for one epoch for each of ``orders``, or fewer by ``target_kl``.

        ``orders`` are permutations of the steps of a full rollout, int64 (transitions,).
        ``between`` is called before each minibatch.
        """
        minibatch = self._minibatch_of(rollout)
        minibatch.refresh()
        metrics: list[torch.Tensor] = []
        epochs, stopped = 0, False
        for order in orders:
            epoch_began = len(metrics)
            for indices in order.split(batch_size):
                between()
                # A copy: captured code writes to the same place every time.
                metrics.append(minibatch(indices).clone())
                if stopped := self._diverged(metrics[-1]):
                    break
            epochs += 1
            if stopped:
                break

        means = torch.stack(metrics).mean(dim=0)
        # Over the last epoch's minibatches only, as in stable-baselines3.
        kl = METRICS.index("approx_kl")
        means[kl] = torch.stack(metrics[epoch_began:])[:, kl].mean()
        if stopped:
            # The last minibatch was not learned from.
            means[-1] = torch.stack(metrics)[:, -1].nanmean()
        unexplained = (rollout.returns - rollout.values).var() / rollout.returns.var()
        last = torch.stack([1 - unexplained, parameter_norm(self.policy)])
        return UpdateReport(torch.cat([means, last]), epochs)

    def learn(self, rollout: FrameRollout, indices: torch.Tensor) -> torch.Tensor:
        """Learns from a minibatch at ``indices``, int64 (batch,), of a full rollout.

        The result is ``METRICS`` and the gradient norm, float32. If their divergence is too great,
        nothing was learned, and the norm is NaN.
        """
        loss, metrics = self._loss(rollout.batch(indices))
        if self._diverged(metrics):
            return torch.cat([metrics, metrics.new_full((1,), torch.nan)])
        policy = self.policy
        norm = gradient_step(loss, policy.optimizer, policy.parameters(), self._max_grad_norm)
        return torch.cat([metrics, norm[None]])

    def loss(self, batch: RolloutBatch) -> tuple[torch.Tensor, torch.Tensor]:
        return self._objective.loss(self.policy, batch, self._coefficients)

    def _diverged(self, metrics: torch.Tensor) -> bool:
        if self._target_kl is None:
            return False
        return bool(metrics[METRICS.index("approx_kl")] > 1.5 * self._target_kl)

    def _minibatch_of(self, rollout: FrameRollout) -> Graphed[torch.Tensor]:
        # One for each: a graph reads the very rollout that it was captured with.
        if rollout not in self._minibatches:
            self._minibatches[rollout] = Graphed(
                partial(self.learn, rollout),
                "update",
                rollout.device,
                self._recorder,
                reads=self._reads,
            )
        return self._minibatches[rollout]

    def _reads(self) -> Iterator[torch.Tensor]:
        yield from optimizer_tensors(self.policy.optimizer)
        yield from self._network
