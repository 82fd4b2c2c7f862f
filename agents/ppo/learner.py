"""PPO's update: one function for a minibatch, which never waits for the device."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch.nn import functional

from agents.networks.policies import PixelActorCriticPolicy
from agents.sb3.arguments import check_count
from agents.storage.rollout import FrameRollout, RolloutBatch
from envs.errors import UserError
from rlcnn.accelerate.compilation import Compiled
from rlcnn.accelerate.cuda_graphs import (
    Graphed,
    can_capture_steps,
    keep_rates_on_device,
    make_recorder,
    parameters_and_buffers,
    steps_capturable,
    tensors_of,
)

METRICS = (
    "loss",
    "policy_gradient_loss",
    "value_loss",
    "entropy_loss",
    "approx_kl",
    "clip_fraction",
)


class UpdateReport(NamedTuple):
    """What an update tells of itself."""

    figures: torch.Tensor  # means of METRICS over its minibatches, and the explained variance
    epochs: int  # begun, whether or not ``target_kl`` ended them


@dataclass(frozen=True)
class Objective:
    """What is minimised, and how, under stable-baselines3's names; the same in every update.

    Attributes:
        clip_values: whether the value's change is clipped, too.
        target_kl: the divergence that, exceeded by half, ends an update; the device is waited for
            in every minibatch where it is set.
    """

    normalize_advantage: bool
    clip_values: bool
    vf_coef: float
    max_grad_norm: float
    target_kl: float | None


class Learner:
    """Learns from rollouts, minibatch by minibatch.

    What changes from one update to the next lies in tensors, which are filled in place: compiled
    code takes it for no constant, and captured code reads it anew.

    Attributes:
        policy: what learns, by its own optimiser.
        objective: what it learns.

    Args:
        policy: on its device.
        objective: as above.
        compiled: whether the loss is compiled (:class:`~rlcnn.accelerate.compilation.Compiled`).
        graphs: whether a minibatch is captured as a graph, where the device has them.
    """

    def __init__(
        self,
        policy: PixelActorCriticPolicy,
        objective: Objective,
        *,
        compiled: bool = False,
        graphs: bool = False,
    ) -> None:
        self.policy, self.objective = policy, objective
        self._clip_range, self._clip_range_vf, self._ent_coef = (
            torch.zeros((), device=policy.device) for _ in range(3)
        )
        self._loss: Callable[[RolloutBatch], tuple[torch.Tensor, torch.Tensor]] = (
            Compiled(self.loss, "update") if compiled else self.loss
        )
        waits = objective.target_kl is not None
        capture = graphs and not waits and can_capture_steps(policy.optimizer)
        self._recorder = make_recorder(policy.device) if capture else None
        self._minibatches: dict[FrameRollout, Graphed[torch.Tensor]] = {}
        self._network = parameters_and_buffers(policy)

    def set_coefficients(
        self, clip_range: float, clip_range_vf: float | None, ent_coef: float
    ) -> None:
        """What the next update clips by, and the weight of its entropy bonus."""
        self._clip_range.fill_(clip_range)
        self._clip_range_vf.fill_(clip_range_vf or 0.0)
        self._ent_coef.fill_(ent_coef)
        if self._recorder is not None:
            # Loading a checkpoint brings the optimiser other ones.
            keep_rates_on_device(self.policy.optimizer)

    def ready(self, rollout: FrameRollout, batch_size: int) -> bool:
        """Whether an update of such minibatches would capture nothing any more."""
        indices = torch.empty(batch_size, dtype=torch.int64, device=rollout.device)
        return self._minibatch_of(rollout).ready(indices)

    def update(
        self,
        rollout: FrameRollout,
        orders: list[torch.Tensor],
        batch_size: int,
        between: Callable[[], object] = lambda: None,
    ) -> UpdateReport:
        """One epoch for each of ``orders``, int64 (transitions,), or fewer by ``target_kl``.

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
        unexplained = (rollout.returns - rollout.values).var() / rollout.returns.var()
        return UpdateReport(torch.cat([means, (1 - unexplained)[None]]), epochs)

    def learn(self, rollout: FrameRollout, indices: torch.Tensor) -> torch.Tensor:
        """Learns from one minibatch: gather, loss, gradient, clipping, Adam.

        Args:
            rollout: a full one.
            indices: int64 (batch,), of its steps.

        Returns:
            ``METRICS``, float32. Where they tell of too great a divergence, nothing was learned.
        """
        optimizer = self.policy.optimizer
        loss, metrics = self._loss(rollout.batch(indices))
        if self._diverged(metrics):
            return metrics
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.objective.max_grad_norm)
        with steps_capturable(optimizer):
            optimizer.step()
        return metrics

    def loss(self, batch: RolloutBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """The clipped surrogate objective (Schulman et al. 2017, equation 9), and ``METRICS``."""
        clip_range, clip_range_vf = self._clip_range, self._clip_range_vf
        values, log_prob, entropy = self.policy.evaluate_actions(batch.observations, batch.actions)
        values = values.flatten()
        advantages = batch.advantages
        if self.objective.normalize_advantage and len(advantages) > 1:
            advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)

        log_ratio = log_prob - batch.old_log_prob
        ratio = log_ratio.exp()
        clipped_ratio = ratio.clamp(1 - clip_range, 1 + clip_range)
        policy_loss = -torch.min(advantages * ratio, advantages * clipped_ratio).mean()

        if self.objective.clip_values:
            change = (values - batch.old_values).clamp(-clip_range_vf, clip_range_vf)
            values = batch.old_values + change
        value_loss = functional.mse_loss(batch.returns, values)
        entropy_loss = -entropy.mean()
        loss = policy_loss + self._ent_coef * entropy_loss + self.objective.vf_coef * value_loss

        with torch.no_grad():
            # The low-variance estimator of the divergence: (r - 1) - log r.
            approx_kl = (ratio - 1 - log_ratio).mean()
            clip_fraction = ((ratio - 1).abs() > clip_range).float().mean()
            metrics = (loss, policy_loss, value_loss, entropy_loss, approx_kl, clip_fraction)
            return loss, torch.stack(metrics)

    def _diverged(self, metrics: torch.Tensor) -> bool:
        target_kl = self.objective.target_kl
        return target_kl is not None and bool(metrics[METRICS.index("approx_kl")] > 1.5 * target_kl)

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
        yield from tensors_of(self.policy.optimizer)
        yield from self._network


def check_minibatches(n_envs: int, n_steps: int, batch_size: int, normalize: bool) -> None:
    """Refuses minibatches that cannot be learned from, or do not divide the rollout.

    Raises:
        UserError: they are such; the line names the nearest size that divides it.
    """
    for name, value in (("n_steps", n_steps), ("batch_size", batch_size)):
        check_count(name, value)
    if normalize and batch_size == 1:
        raise UserError(
            "batch_size 1 has no spread to normalize advantages by: it must be at least 2,"
            " or normalize_advantage off"
        )
    rollout = n_envs * n_steps
    if rollout % batch_size:
        raise UserError(
            f"batch_size {batch_size} does not divide the rollout of {rollout} steps"
            f" ({n_envs} environments x {n_steps} steps);"
            f" the nearest that does is {_nearest_divisor(rollout, batch_size)}"
        )


def _nearest_divisor(number: int, wanted: int) -> int:
    wanted = min(wanted, number)
    for distance in itertools.count():
        for divisor in (wanted - distance, wanted + distance):
            if divisor > 0 and number % divisor == 0:
                return divisor
    raise AssertionError("1 divides every number")
