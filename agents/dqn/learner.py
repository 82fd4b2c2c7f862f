"""DQN's inner loop: draw a batch, learn from it, choose actions; as CUDA graphs on a GPU."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch

from agents.dqn.objectives import QBatch, bootstrap, q_update
from agents.networks.policies import PixelQNetwork
from agents.storage.replay import FrameReplay
from agents.storage.samplers import NStepReturns
from rlcnn.accelerate.cuda_graphs import (
    Graphed,
    Recorder,
    can_capture_steps,
    keep_rates_on_device,
    make_recorder,
    parameters_and_buffers,
    tensors_of,
)
from rlcnn.accelerate.transfers import host_tensor, pinned


class QSteps:
    """Draws batches, learns from them, and chooses actions.

    Attributes:
        captures: whether gradient steps and actions are captured as graphs.
        captures_sampling: whether sampling is captured, too: it needs the replay on the GPU.

    Args:
        q_net: what learns.
        optimizer: by which.
        target: makes the values to learn.
        actor: chooses actions.
        replay: where batches are drawn from.
        returns: sums up their rewards.
        max_grad_norm: largest gradient norm.
        graphs: whether to capture what can be captured, on a GPU.
    """

    def __init__(
        self,
        q_net: PixelQNetwork,
        optimizer: torch.optim.Optimizer,
        *,
        target: PixelQNetwork,
        actor: PixelQNetwork,
        replay: FrameReplay,
        returns: NStepReturns,
        max_grad_norm: float,
        graphs: bool,
    ) -> None:
        self._q_net, self._optimizer, self._max_grad_norm = q_net, optimizer, max_grad_norm
        self._target, self._actor = target, actor
        self._replay, self._returns = replay, returns
        self.captures = graphs and can_capture_steps(optimizer)
        self._replay_on_device = replay.device.type == q_net.device.type
        self.captures_sampling = self.captures and self._replay_on_device
        self._batches: dict[int, Graphed[QBatch]] = {}
        learned, acted = parameters_and_buffers(q_net), parameters_and_buffers(actor)
        self._learn = Graphed(
            self._gradient_step,
            "update",
            q_net.device,
            self._recorder(),
            reads=lambda: (*learned, *tensors_of(optimizer)),
        )
        self._choose = Graphed(
            self._best_now if self._replay_on_device else self._best,
            "policy",
            q_net.device,
            self._recorder(),
            reads=lambda: acted,
        )

    def prepare(self) -> None:
        """To be called before a round of updates, and before their learning rates are set."""
        if self.captures:
            # Loading a checkpoint brings the optimiser other ones.
            keep_rates_on_device(self._optimizer)
            self._learn.refresh()
            self._choose.refresh()
            for drawing in self._batches.values():
                drawing.refresh()

    def draw(self, batch_size: int) -> QBatch:
        """Transitions and the values to learn, to be used before the next are drawn."""
        return self._drawing(batch_size)()

    def can_draw_beside_updates(self, batch_size: int) -> bool:
        """Whether drawing captures nothing any more."""
        return self._drawing(batch_size).ready()

    def draw_all(self, batch_size: int, count: int) -> list[QBatch]:
        """Several batches at once."""
        drawn = (self.draw(batch_size) for _ in range(count))
        # Copies of what a graph writes to the same place every time.
        return [_copied(batch) if self.captures_sampling else batch for batch in drawn]

    def learn(self, batch: QBatch) -> torch.Tensor:
        """One gradient step; its loss, float32 scalar."""
        return self._learn(*batch).clone()

    def choose(self, observations: np.ndarray | None = None) -> np.ndarray:
        """Greedy actions int64 (environments,).

        Args:
            observations: uint8 (environments, depth * channels, height, width); by default the
                newest that the replay holds. Only for a CPU, where they need no copy.
        """
        if observations is not None:
            greedy = self._best(host_tensor(observations))
        else:
            greedy = self._choose(*self._newest_on_host())
        return greedy.cpu().numpy()

    def ready(self, batch_size: int, batch: QBatch) -> bool:
        """Whether nothing is left to be captured, beside which nothing else may go on."""
        return (
            self._drawing(batch_size).ready()
            and self._choose.ready(*self._newest_on_host())
            and self._replay.captured
            and self._learn.ready(*batch)
        )

    def _recorder(self) -> Recorder | None:
        # One for each graph: an update may run beside the others.
        return make_recorder(self._q_net.device) if self.captures else None

    def _newest_on_host(self) -> list[torch.Tensor]:
        """What acting takes from a replay on the host; nothing from one on the device."""
        if self._replay_on_device:
            return []
        return [pinned(self._replay.newest_observations(), self._q_net.device)]

    def _drawing(self, batch_size: int) -> Graphed[QBatch]:
        if batch_size not in self._batches:
            network = parameters_and_buffers(self._target)
            self._batches[batch_size] = Graphed(
                partial(self._sample, batch_size),
                "sampling",
                self._q_net.device,
                self._recorder() if self.captures_sampling else None,
                reads=lambda: network,
                generators=[self._replay.sampler.generator],
            )
        return self._batches[batch_size]

    def _sample(self, batch_size: int) -> QBatch:
        batch = self._replay.sample(batch_size, self._returns).to(self._q_net.device)
        return bootstrap(self._target, batch)

    def _gradient_step(self, *batch: torch.Tensor) -> torch.Tensor:
        return q_update(self._q_net, self._optimizer, QBatch(*batch), self._max_grad_norm)

    def _best_now(self) -> torch.Tensor:
        return self._best(self._replay.newest_observations())

    @torch.no_grad()
    def _best(self, observations: torch.Tensor) -> torch.Tensor:
        return self._actor(observations).argmax(dim=1)


def _copied(batch: QBatch) -> QBatch:
    return QBatch(*(column.clone() for column in batch))
