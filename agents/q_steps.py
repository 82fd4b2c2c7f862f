"""What DQN does over and over, captured as CUDA graphs where everything lies on one GPU."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch

from agents.graphs import (
    Graphed,
    Recorder,
    can_capture_steps,
    held_by,
    keep_rates_on_device,
    make_recorder,
    tensors_of,
)
from agents.policies import PixelQNetwork
from agents.q_learning import QBatch, bootstrap, q_update
from agents.replay import FrameReplay
from agents.sampling import NStepReturns
from agents.staging import pinned


class QSteps:
    """Draws batches, learns from them, and chooses actions.

    Attributes:
        captures: whether graphs are made of these.

    Args:
        q_net: what learns.
        optimizer: by which.
        target: makes the values to learn.
        actor: chooses actions.
        replay: where batches are drawn from.
        returns: sums up their rewards.
        max_grad_norm: largest gradient norm.
        graphs: whether graphs are made where they can be: on a GPU that holds the replay, too.
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
        together = replay.device.type == q_net.device.type
        self.captures = graphs and together and can_capture_steps(optimizer)
        self._batches: dict[int, Graphed[QBatch]] = {}
        learned, acted = held_by(q_net), [*replay.tensors(), *held_by(actor)]
        self._learn = Graphed(
            self._gradient_step,
            "update",
            self._recorder(),
            reads=lambda: (*learned, *tensors_of(optimizer)),
        )
        self._choose = Graphed(self._best, "policy", self._recorder(), reads=lambda: acted)

    def prepare(self) -> None:
        """To be called before learning rates are set for the updates that follow."""
        if self.captures:
            # Loading a checkpoint brings the optimiser other ones.
            keep_rates_on_device(self._optimizer)

    def draw(self, batch_size: int) -> QBatch:
        """Transitions and the values to learn, to be used before the next are drawn."""
        return self._drawing(batch_size)()

    def draw_all(self, batch_size: int, count: int) -> list[QBatch]:
        """Several batches at once."""
        drawn = (self.draw(batch_size) for _ in range(count))
        # Copies of what a graph writes to the same place every time.
        return [_copied(batch) if self.captures else batch for batch in drawn]

    def learn(self, batch: QBatch) -> torch.Tensor:
        """One gradient step; its loss, float32 scalar."""
        return self._learn(*batch).clone()

    def choose(self, observations: np.ndarray | None = None) -> np.ndarray:
        """Greedy actions int64 (environments,).

        Args:
            observations: uint8 (environments, depth * channels, height, width), what they stand at;
                by default the newest that the replay holds.
        """
        if observations is not None:
            greedy = self._best_of(torch.as_tensor(observations, device=self._actor.device))
        else:
            greedy = self._choose(self._newest())
        return greedy.cpu().numpy()

    def ready(self, batch_size: int, batch: QBatch) -> bool:
        """Whether nothing is left to be captured, beside which nothing else may go on."""
        graphs = self._drawing(batch_size).ready(), self._choose.ready(self._newest())
        return all(graphs) and self._learn.ready(*batch)

    def _recorder(self) -> Recorder | None:
        # One for each graph: an update may run beside the others.
        return make_recorder(self._q_net.device) if self.captures else None

    def _drawing(self, batch_size: int) -> Graphed[QBatch]:
        if batch_size not in self._batches:
            drawn = [*self._replay.tensors(), *held_by(self._target)]
            self._batches[batch_size] = Graphed(
                partial(self._sample, batch_size),
                "sampling",
                self._recorder(),
                reads=lambda: drawn,
                generators=[self._replay.sampler.generator],
            )
        return self._batches[batch_size]

    def _sample(self, batch_size: int) -> QBatch:
        batch = self._replay.sample(batch_size, self._returns).to(self._q_net.device)
        return bootstrap(self._target, batch)

    def _gradient_step(self, *batch: torch.Tensor) -> torch.Tensor:
        return q_update(self._q_net, self._optimizer, QBatch(*batch), self._max_grad_norm)

    def _newest(self) -> torch.Tensor:
        """The numbers of the newest frames, int64 (environments,)."""
        return pinned(self._replay.newest_numbers, self._replay.device)

    def _best(self, newest: torch.Tensor) -> torch.Tensor:
        # The newest frames are already on the device, or as near as they will be.
        return self._best_of(self._replay.observations(newest).to(self._q_net.device))

    @torch.no_grad()
    def _best_of(self, observations: torch.Tensor) -> torch.Tensor:
        return self._actor(observations).argmax(dim=1)


def _copied(batch: QBatch) -> QBatch:
    return QBatch(*(column.clone() for column in batch))
