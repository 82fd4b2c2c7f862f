"""What training runs ask of an agent, whatever its algorithm."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from stable_baselines3.common.base_class import BaseAlgorithm
from torch import nn

if TYPE_CHECKING:
    # Storage imports this package.
    from agents.storage.replay import FrameReplay
    from agents.storage.rollout import FrameRollout


class RunAgent(BaseAlgorithm):
    """Base of all agents; what it answers here is right for one without a replay."""

    @property
    def trained_network(self) -> nn.Module:
        """The network that learns and holds the features extractor."""
        return self.policy

    @property
    def storage(self) -> FrameRollout | FrameReplay:
        """Stored frames or features."""
        raise NotImplementedError

    @property
    def storage_bytes(self) -> int:
        """Memory of all storage; of two rollouts where one is filled beside the other's update."""
        raise NotImplementedError

    def setup_replay(self) -> FrameReplay | None:
        """The replay, made at the first call; None for an algorithm without one.

        Raises:
            UserError: it does not fit the environment or the memory.
        """
        return None

    def load_replay(self, path: Path) -> None:
        """Reads the replay of a checkpoint.

        Raises:
            UserError: the file is damaged, or another encoder made its features.
        """

    def finish_update(self) -> None:
        """Waits for the update under way, if there is one.

        Raises:
            UserError: the loss or a parameter is no longer a finite number.
        """

    def training_state(self) -> dict[str, Any]:
        """JSON values that the next update depends on, beside stable-baselines3's counters."""
        return {}

    def restore_training_state(self, state: dict[str, Any]) -> None:
        """Takes over what :meth:`training_state` returned, from among all keys of a checkpoint."""

    def notes_on_resume(self, total_steps: int) -> list[str]:
        """Lines on what a resumed run of ``total_steps`` does differently from a new one."""
        return []

    def notes_on_graphs(self) -> list[str]:
        """Lines on what is not captured as a CUDA graph although the agent captures graphs."""
        return []
