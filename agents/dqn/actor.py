"""DQN's actor: greedy actions for the newest observations of its replay."""

from __future__ import annotations

import numpy as np
import torch

from agents.networks.policies import PixelQNetwork
from agents.storage.codecs import PixelCodec
from agents.storage.replay import FrameReplay
from rlcnn.accelerate.cuda_graphs import Graphed, make_recorder, parameters_and_buffers
from rlcnn.accelerate.transfers import host_tensor, pinned


class GreedyActor:
    """The actions of highest value for the newest observations of a replay.

    The network is in evaluation mode; ``captures`` says whether acting is captured as a graph.
    """

    def __init__(self, network: PixelQNetwork, replay: FrameReplay, captures: bool) -> None:
        self._network, self._replay = network, replay
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
        return self._network(seen).argmax(dim=1)
