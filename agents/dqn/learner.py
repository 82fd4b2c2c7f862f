"""DQN's updates: sample batches, take a gradient step on each, move the target network."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any, NamedTuple

import torch
from stable_baselines3.common.utils import get_parameters_by_name, polyak_update

from agents.collect.inference_copy import InferenceCopy
from agents.dqn.draws import Draws
from agents.dqn.objectives import QObjective
from agents.networks.policies import PixelDQNPolicy
from agents.storage.replay import FrameReplay
from agents.storage.samplers import NStepReturns
from rlcnn.accelerate.cuda_graphs import Graphed, make_recorder, parameters_and_buffers
from rlcnn.accelerate.gradient_step import (
    can_capture_steps,
    gradient_step,
    keep_rates_on_device,
    optimizer_tensors,
)
from rlcnn.accelerate.transfers import upload
from rlcnn.accelerate.update_runner import UpdateRunner

Minibatch = tuple[torch.Tensor, ...]
"""A batch's places and weights, then the columns that the objective prepared."""


class Step(NamedTuple):
    """What a gradient step reports, on the device."""

    metrics: torch.Tensor  # float32 (2,), the loss and the gradient norm before clipping
    priorities: torch.Tensor  # float32 (batch,)


class DQNLearner:
    """Learns from a replay; on a GPU, sampling and a gradient step are each a CUDA graph."""

    def __init__(
        self,
        policy: PixelDQNPolicy,
        replay: FrameReplay,
        objective: QObjective,
        draws: Draws,
        *,
        n_steps: int,
        gamma: float,
        max_grad_norm: float,
        graphs: bool,
    ) -> None:
        self._q_net, self._q_net_target = policy.q_net, policy.q_net_target
        self._optimizer, self._max_grad_norm = policy.optimizer, max_grad_norm
        self.replay, self._objective, self._draws = replay, objective, draws
        # A window ends at the newest transition: none is longer than the replay.
        self.returns = NStepReturns(min(n_steps, replay.capacity), gamma, replay.device)
        # The target network's copy for inference.
        self.target = InferenceCopy(self._q_net_target)
        self.target.sync()
        # Of BatchNorm and of spectral normalisation, which the target network takes over whole.
        statistics = ["running_", "parametrizations.weight.0._"]
        self._statistics = get_parameters_by_name(self._q_net, statistics)
        self._statistics_target = get_parameters_by_name(self._q_net_target, statistics)
        self.captures = graphs and can_capture_steps(self._optimizer)
        # Sampling needs the replay on the GPU, too.
        self.captures_sampling = self.captures and replay.device.type == self._q_net.device.type
        self._sampling: dict[int, Graphed[Minibatch]] = {}
        self._batch_type: type[Any] = tuple
        self._new_priorities: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._set_priorities = Graphed(
            replay.set_priorities,
            "priorities",
            replay.device,
            make_recorder(replay.device, self.captures_sampling),
        )
        tensors = parameters_and_buffers(self._q_net)
        self._step: Graphed[Step] = Graphed(
            self._gradient_step,
            "update",
            self._q_net.device,
            # One for each graph: an update may run beside the others.
            make_recorder(self._q_net.device, self.captures),
            reads=lambda: (*tensors, *optimizer_tensors(self._optimizer)),
            generators=list(filter(None, [draws.losses])),
        )

    def prepare(self) -> None:
        """To be called before a round of updates, and before their learning rates are set."""
        if self.captures:
            # Loading a checkpoint replaces the optimiser's rates.
            keep_rates_on_device(self._optimizer)
            self._step.refresh()
            for sampling in self._sampling.values():
                sampling.refresh()

    def sample_batches(
        self, batch_size: int, count: int, runner: UpdateRunner[list[torch.Tensor]]
    ) -> Iterable[Minibatch]:
        """Batches as the objective prepares them.

        Without overlap each is sampled when it is asked for, with the priorities that the batch
        before it led to, and valid until the next one is. With overlap all are sampled now: before
        more steps are stored, and beside the update under way (without its priorities) unless
        sampling has something to capture.
        """
        sampling = self._sampling_of(batch_size)
        if not runner.overlap:
            return (self._sample_in_turn(sampling) for _ in range(count))
        batches = (sampling() for _ in range(count))
        if not sampling.ready():
            runner.finish()
        if not self.captures_sampling:
            return list(batches)
        # Copies: a graph writes to the same place every time.
        return [tuple(column.clone() for column in batch) for batch in batches]

    def learn(self, batch: Minibatch) -> torch.Tensor:
        """Takes a gradient step; the loss and the gradient norm before clipping, float32 (2,)."""
        places, *columns = batch
        metrics, priorities = self._step(*columns)
        if self.replay.sampler.uses_priorities:
            self._new_priorities.append((places, priorities.clone()))
        return metrics.clone()

    def set_priorities(self) -> None:
        """Hands the priorities of past gradient steps to the replay's sampler, in order.

        For the thread that stores and samples, while no update is under way.
        """
        for places, priorities in self._new_priorities:
            self._set_priorities(places, upload(priorities, self.replay.device))
        self._new_priorities.clear()

    def ready(self, batch_size: int, batch: Minibatch) -> bool:
        """Whether storing, sampling and learning have nothing left to capture as a graph."""
        sampling, (_, *columns) = self._sampling_of(batch_size), batch
        return self.replay.captured and sampling.ready() and self._step.ready(*columns)

    def move_target(self, tau: float) -> None:
        """Moves the target network towards the online one by a share of ``tau``."""
        polyak_update(self._q_net.parameters(), self._q_net_target.parameters(), tau)
        polyak_update(self._statistics, self._statistics_target, 1.0)
        self.target.sync()

    def _sampling_of(self, batch_size: int) -> Graphed[Minibatch]:
        if batch_size not in self._sampling:
            tensors = parameters_and_buffers(self.target.network)
            self._sampling[batch_size] = Graphed(
                partial(self._sample, batch_size),
                "sampling",
                self._q_net.device,
                make_recorder(self._q_net.device, self.captures_sampling),
                reads=lambda: tensors,
                generators=[
                    self.replay.sampler.generator,
                    *filter(None, [self._draws.targets]),
                ],
            )
        return self._sampling[batch_size]

    def _sample_in_turn(self, sampling: Graphed[Minibatch]) -> Minibatch:
        self.set_priorities()
        return sampling()

    def _sample(self, batch_size: int) -> Minibatch:
        batch = self.replay.sample(batch_size, self.returns).to(self._q_net.device)
        prepared = self._objective.prepare(self.target.network, batch, self._draws.targets)
        self._batch_type = type(prepared)
        return (batch.places, batch.weights, *prepared)

    def _gradient_step(self, weights: torch.Tensor, *columns: torch.Tensor) -> Step:
        losses, priorities = self._objective.loss(
            self._q_net, self._batch_type(*columns), self._draws.losses
        )
        loss, parameters = (losses * weights).mean(), self._q_net.parameters()
        norm = gradient_step(loss, self._optimizer, parameters, self._max_grad_norm)
        return Step(torch.stack([loss.detach(), norm]), priorities)
