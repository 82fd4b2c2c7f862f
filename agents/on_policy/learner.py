"""An update from a rollout: epochs of minibatches, which never wait for the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import ClassVar, NamedTuple

import torch

from agents.networks.policies import PixelActorCriticPolicy, PixelDQNPolicy
from agents.storage.codecs import PixelCodec
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
from rlcnn.encoders.preprocessing import Preprocessing


class UpdateReport(NamedTuple):
    """The result of an update."""

    figures: torch.Tensor  # float32, of the learner's ``figures``
    epochs: int  # begun, whether or not they were ended early


class RolloutLearner:
    """Learns from rollouts, minibatch by minibatch, by the policy's own optimiser.

    What changes from one update to the next is in tensors, filled in place: compiled code does not
    treat them as constants, and captured code reads them anew.

    Args:
        policy: on its device; its parameters are those of the network that learns.
        max_grad_norm: largest gradient norm.
        compiled: whether the loss is compiled (:class:`~rlcnn.accelerate.compilation.Compiled`).
        graphs: whether a minibatch is captured as a graph, where the device has graphs.

    Attributes:
        metrics: names of the metrics of a minibatch; the first is "loss".
    """

    metrics: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        policy: PixelActorCriticPolicy | PixelDQNPolicy,
        max_grad_norm: float,
        *,
        compiled: bool = False,
        graphs: bool = False,
    ) -> None:
        self.policy, self.max_grad_norm = policy, max_grad_norm
        self._loss: Callable[[RolloutBatch], tuple[torch.Tensor, torch.Tensor]] = (
            Compiled(self.loss, "update") if compiled else self.loss
        )
        captures = graphs and can_capture_steps(policy.optimizer)
        self._recorder = make_recorder(policy.device, captures)
        self._minibatches: dict[FrameRollout, Graphed[torch.Tensor]] = {}
        self._network = parameters_and_buffers(policy)

    def loss(self, batch: RolloutBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss of a minibatch, float32 scalar with a gradient, and :attr:`metrics`, float32."""
        raise NotImplementedError

    def ends_update(self, metrics: torch.Tensor) -> bool:
        """Whether an update ends at a minibatch with these metrics, without learning from it."""
        return False

    def summary(self, metrics: list[torch.Tensor], epoch_began: int) -> torch.Tensor:
        """The metrics of an update from those of its minibatches, with gradient norms at the end.

        ``epoch_began`` is the place of the last epoch's first one.
        """
        return torch.stack(metrics).mean(dim=0)

    @property
    def figures(self) -> tuple[str, ...]:
        """What an update reports, by name.

        The norms are of all gradients and all parameters as one vector; that of the gradients is a
        mean over minibatches, before clipping.
        """
        return (*self.metrics, "grad_norm", "explained_variance", "param_norm")

    def prepare(self) -> None:
        """To be called before each update, and before its learning rates are set."""
        if self._recorder is not None:
            # Loading a checkpoint replaces the optimiser's rates.
            keep_rates_on_device(self.policy.optimizer)

    def take_returns(self, rollout: FrameRollout) -> None:
        """Updates statistics of returns; called before the first minibatch of an update."""

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
        """Learns for one epoch for each of ``orders``, or fewer by :meth:`ends_update`.

        ``orders`` are permutations of the steps of a full rollout, int64 (transitions,).
        ``between`` is called before each minibatch.
        """
        minibatch = self._minibatch_of(rollout)
        minibatch.refresh()
        self.take_returns(rollout)
        metrics: list[torch.Tensor] = []
        epochs, stopped = 0, False
        for order in orders:
            epoch_began = len(metrics)
            for indices in order.split(batch_size):
                between()
                # A copy: captured code writes to the same place every time.
                metrics.append(minibatch(indices).clone())
                if stopped := self.ends_update(metrics[-1]):
                    break
            epochs += 1
            if stopped:
                break

        means = self.summary(metrics, epoch_began)
        if stopped:
            # The last minibatch was not learned from.
            means[-1] = torch.stack(metrics)[:, -1].nanmean()
        if isinstance(rollout.codec, PixelCodec):
            # Not before: the probabilities of the rollout's actions are of pixels as they were
            # normalised while acting.
            for module in self.policy.modules():
                if isinstance(module, Preprocessing):
                    module.observe(rollout.newest_frames)
        unexplained = (rollout.returns - rollout.values).var() / rollout.returns.var()
        last = torch.stack([1 - unexplained, parameter_norm(self.policy)])
        return UpdateReport(torch.cat([means, last]), epochs)

    def learn(self, rollout: FrameRollout, indices: torch.Tensor) -> torch.Tensor:
        """Learns from a minibatch at ``indices``, int64 (batch,), of a full rollout.

        The result is :attr:`metrics` and the gradient norm, float32. If the update ends here,
        nothing was learned, and the norm is NaN.
        """
        loss, metrics = self._loss(rollout.batch(indices))
        if self.ends_update(metrics):
            return torch.cat([metrics, metrics.new_full((1,), torch.nan)])
        policy = self.policy
        norm = gradient_step(loss, policy.optimizer, policy.parameters(), self.max_grad_norm)
        return torch.cat([metrics, norm[None]])

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
