"""DQN's actor: greedy actions for the newest observations of its replay."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from stable_baselines3.common.utils import LinearSchedule

from agents.networks.policies import PixelQNetwork
from agents.storage.codecs import PixelCodec
from agents.storage.replay import FrameReplay
from rlcnn.accelerate.cuda_graphs import Graphed, make_recorder, parameters_and_buffers
from rlcnn.accelerate.transfers import host_tensor, pinned

if TYPE_CHECKING:
    from agents.dqn.agent import DQN


def scheduled_epsilon(model: DQN, progress_remaining: float, total_timesteps: int) -> float:
    """Epsilon where a run of ``total_timesteps`` has a share of ``progress_remaining`` left."""
    variant, share = model.variant, model.exploration_fraction
    if variant.exploration_end < 1 and 1 - progress_remaining >= variant.exploration_end:
        return 0.0
    if variant.exploration_steps and total_timesteps:
        share = variant.exploration_steps / total_timesteps
    bounds = model.exploration_initial_eps, model.exploration_final_eps
    return LinearSchedule(*bounds, share)(progress_remaining)


def spread_epsilon(epsilon: float, n_envs: int, spread: float) -> float | np.ndarray:
    """An epsilon for each environment, float64 (environments,) (Horgan et al. 2018, section 4.1).

    Environment i of N has ``epsilon ** (1 + i / (N - 1) * spread)``; a spread of 0 keeps the one.
    """
    if not spread or n_envs == 1:
        return epsilon
    return epsilon ** (1 + np.arange(n_envs) / (n_envs - 1) * spread)


class GreedyActor:
    """The actions of highest value for the newest observations of a replay.

    The network is in evaluation mode; ``captures`` says whether acting is captured as a graph.
    ``generator`` draws what is random in the network.
    """

    def __init__(
        self,
        network: PixelQNetwork,
        replay: FrameReplay,
        captures: bool,
        generator: torch.Generator | None = None,
    ) -> None:
        self._network, self._replay, self._generator = network, replay, generator
        self._device = network.device
        self._replay_on_device = replay.device.type == self._device.type
        self._on_host = self._device.type == "cpu" and isinstance(replay.codec, PixelCodec)
        tensors = parameters_and_buffers(network)
        self._graph = Graphed(
            self._best,
            "policy",
            self._device,
            make_recorder(self._device, captures),
            reads=lambda: tensors,
            generators=list(filter(None, [generator])),
        )

    def act(self, observations: np.ndarray) -> np.ndarray:
        """Actions int64 (environments,).

        ``observations`` are uint8 (environments, depth * channels, height, width), the newest, used
        where they need no copy.
        """
        if self._on_host:
            return self._best(host_tensor(observations)).numpy()
        return self._graph(*self._inputs()).cpu().numpy()

    def ready(self) -> bool:
        """Whether nothing is left to capture as a graph."""
        return self._graph.ready(*self._inputs())

    def refresh(self) -> None:
        """See :meth:`~rlcnn.accelerate.cuda_graphs.Graphed.refresh`."""
        self._graph.refresh()

    def _inputs(self) -> list[torch.Tensor]:
        # From a replay on the device nothing is handed over: a graph reads it there.
        if self._replay_on_device:
            return []
        return [pinned(self._replay.newest_observations(), self._device)]

    @torch.no_grad()
    def _best(self, observations: torch.Tensor | None = None) -> torch.Tensor:
        seen = self._replay.newest_observations() if observations is None else observations
        return self._network(seen, self._generator).argmax(dim=1)
