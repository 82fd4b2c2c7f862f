"""DQN's updates: sample batches, take a gradient step on each, move the target network."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from stable_baselines3.common.utils import get_parameters_by_name, polyak_update

from agents.collect.inference_copy import InferenceCopy
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
from rlcnn.accelerate.update_runner import UpdateRunner


class DQNLearner:
    """Learns from a replay; on a GPU, sampling and a gradient step are each a CUDA graph."""

    def __init__(
        self,
        policy: PixelDQNPolicy,
        replay: FrameReplay,
        objective: QObjective,
        *,
        n_steps: int,
        gamma: float,
        max_grad_norm: float,
        graphs: bool,
    ) -> None:
        self._q_net, self._q_net_target = policy.q_net, policy.q_net_target
        self._optimizer, self._max_grad_norm = policy.optimizer, max_grad_norm
        self.replay, self._objective = replay, objective
        self.returns = NStepReturns(n_steps, gamma, replay.device)
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
        self._sampling: dict[int, Graphed[Any]] = {}
        self._batch_type: type[Any] = tuple
        tensors = parameters_and_buffers(self._q_net)
        self._step = Graphed(
            self._gradient_step,
            "update",
            self._q_net.device,
            # One for each graph: an update may run beside the others.
            make_recorder(self._q_net.device, self.captures),
            reads=lambda: (*tensors, *optimizer_tensors(self._optimizer)),
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
    ) -> Iterable[Any]:
        """Batches as the objective prepares them.

        Without overlap each is sampled when it is asked for, and valid until the next one is. With
        overlap all are sampled now: before more steps are stored, and beside the update under way
        unless sampling has something to capture.
        """
        sampling = self._sampling_of(batch_size)
        batches = (sampling() for _ in range(count))
        if not runner.overlap:
            return batches
        if not sampling.ready():
            runner.finish()
        if not self.captures_sampling:
            return list(batches)
        # Copies: a graph writes to the same place every time.
        return [type(batch)(*(column.clone() for column in batch)) for batch in batches]

    def learn(self, batch: Any) -> torch.Tensor:
        """Takes a gradient step; the loss and the gradient norm before clipping, float32 (2,)."""
        self._batch_type = type(batch)
        return self._step(*batch).clone()

    def ready(self, batch_size: int, batch: Any) -> bool:
        """Whether storing, sampling and learning have nothing left to capture as a graph."""
        sampling = self._sampling_of(batch_size)
        return self.replay.captured and sampling.ready() and self._step.ready(*batch)

    def move_target(self, tau: float) -> None:
        """Moves the target network towards the online one by a share of ``tau``."""
        polyak_update(self._q_net.parameters(), self._q_net_target.parameters(), tau)
        polyak_update(self._statistics, self._statistics_target, 1.0)
        self.target.sync()

    def _sampling_of(self, batch_size: int) -> Graphed[Any]:
        if batch_size not in self._sampling:
            tensors = parameters_and_buffers(self.target.network)
            self._sampling[batch_size] = Graphed(
                partial(self._sample, batch_size),
                "sampling",
                self._q_net.device,
                make_recorder(self._q_net.device, self.captures_sampling),
                reads=lambda: tensors,
                generators=[self.replay.sampler.generator],
            )
        return self._sampling[batch_size]

    def _sample(self, batch_size: int) -> Any:
        batch = self.replay.sample(batch_size, self.returns).to(self._q_net.device)
        return self._objective.prepare(self.target.network, batch)

    def _gradient_step(self, *columns: torch.Tensor) -> torch.Tensor:
        loss = self._objective.loss(self._q_net, self._batch_type(*columns))
        parameters = self._q_net.parameters()
        norm = gradient_step(loss, self._optimizer, parameters, self._max_grad_norm)
        return torch.stack([loss.detach(), norm])
