"""An algorithm and its agents: the base class, as the rest of the project uses it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from torch import nn

from agents.hyperparameters import Hyperparameters
from agents.storage.replay import FrameReplay
from agents.storage.rollout import FrameRollout

Model = TypeVar("Model", bound=BaseAlgorithm)


class ActionScores(NamedTuple):
    """What an agent computes to choose an action, without anything random.

    Attributes:
        scores: float32 (batch, actions): Q values, or log probabilities.
        values: float32 (batch,): the estimated return.
    """

    scores: torch.Tensor
    values: torch.Tensor


class AlgorithmSpec(Generic[Model]):
    """An algorithm: facts about it, and methods that a training run calls with one of its agents.

    What follows from the hyperparameters alone is a method of
    :class:`~agents.hyperparameters.Hyperparameters`. The defaults are for an algorithm without a
    replay.

    Attributes:
        name: the value of ``--algo``, and the section of options in a configuration.
        agent: the class of its agents.
        section: the class of its hyperparameters.
        baseline: stable-baselines3's own class; None where it has none.
        log_interval: rollouts, or episodes of an algorithm with a replay, between two rows of
            metrics; stable-baselines3's default.
        on_policy: whether an update learns from the last rollout alone, so that a rollout cut short
            is not learned from and each update is logged by itself.
        replay: whether a checkpoint may hold a replay beside the policy.
        groups: whether environments can be stepped in several groups, in turn.
        compiles: whether ``--compile on`` compiles its updates.
        action_values: whether the network values actions, rather than choosing them and valuing
            observations.
    """

    name: ClassVar[str]
    agent: type[Model]
    section: ClassVar[type[Hyperparameters]]
    baseline: ClassVar[type[BaseAlgorithm] | None] = None
    log_interval: ClassVar[int]
    on_policy: ClassVar[bool] = False
    replay: ClassVar[bool] = False
    groups: ClassVar[bool] = False
    compiles: ClassVar[bool] = False
    action_values: ClassVar[bool] = False

    def encoder_options(
        self, section: Hyperparameters, encoder: str, weights: str
    ) -> dict[str, Any]:
        """The encoder's options where the user gives none, if they are not its own defaults."""
        return {}

    def notes_on_encoder(self, encoder: str, options: Mapping[str, Any]) -> list[str]:
        """Lines on an encoder and its options that do not suit the algorithm."""
        return []

    def trained_network(self, model: Model) -> nn.Module:
        """The network that learns and holds the features extractor."""
        return model.policy

    def action_scores(self, model: Model, observations: torch.Tensor) -> ActionScores:
        """What the agent would choose actions by; its gradients reach the observations.

        By default the values of :meth:`trained_network`, for an algorithm with ``action_values``.

        Args:
            model: one of its agents.
            observations: uint8 (batch, channels, height, width), on the agent's device; or floats
                of 0 to 255, inside ``rlcnn.visualize.saliency.takes_pixels_as_floats``.
        """
        q_values = self.trained_network(model)(observations)
        return ActionScores(q_values, q_values.amax(dim=1))

    def storage(self, model: Model) -> FrameRollout | FrameReplay:
        """Stored frames or features; a replay takes its memory at the first call.

        Raises:
            UserError: it does not fit the environment or the memory.
        """
        raise NotImplementedError

    def storage_bytes(self, model: Model) -> int:
        """Memory of all storage."""
        return self.storage(model).nbytes

    def find_replay(self, model: Model) -> FrameReplay | None:
        """The replay; None for an algorithm without one."""
        storage = self.storage(model)
        return storage if isinstance(storage, FrameReplay) else None

    def load_replay(self, model: Model, path: Path) -> None:
        """Reads the replay of a checkpoint.

        Raises:
            UserError: the file is damaged, or another frozen encoder made its features.
        """

    def training_state(self, model: Model) -> dict[str, Any]:
        """JSON values that the next update depends on, beside stable-baselines3's counters."""
        return {}

    def restore_training_state(self, model: Model, state: dict[str, Any]) -> None:
        """Takes over what :meth:`training_state` returned, from among all keys of a checkpoint."""

    def notes_on_resume(self, model: Model, total_steps: int) -> list[str]:
        """Lines on what a resumed run of ``total_steps`` does differently from a new one."""
        return []

    def notes_on_graphs(self, model: Model) -> list[str]:
        """Lines on what is not captured as a CUDA graph although the agent captures graphs."""
        return []
