"""What an agent sees and how it decides, drawn beside a game that it plays."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from agents.algorithm import ActionScores
from agents.registry import algorithm_of
from rlcnn.visualize.film_panels import DecisionView, FilmPanels
from rlcnn.visualize.heat import frames_of
from rlcnn.visualize.saliency import gradient, strength, takes_pixels_as_floats


@contextmanager
def action_scores(model: Any) -> Iterator[Callable[[torch.Tensor], ActionScores]]:
    """What an agent chooses actions by, as a function of observations, inside the block.

    Observations are uint8 or floats of 0 to 255 (batch, channels, height, width) on the agent's
    device. The encoder computes in float32, so that gradients of the pixels are exact.

    Args:
        model: an agent of any algorithm here.
    """
    algorithm = algorithm_of(model)
    network: Any = algorithm.trained_network(model)
    precision, network.precision = network.precision, "fp32"
    try:
        with takes_pixels_as_floats(network):
            yield lambda observations: algorithm.action_scores(model, observations)
    finally:
        network.precision = precision


class DecisionOverlay:
    """Chooses an agent's actions for a film, and draws each decision beside the game.

    It draws no random numbers: a game with it is the game without it.
    """

    def __init__(
        self,
        model: Any,
        frame_stack: int,
        title: str,
        policy: Callable[[np.ndarray], np.ndarray],
    ) -> None:
        """Stores the arguments.

        Args:
            model: an agent of any algorithm here.
            frame_stack: frames in its observations.
            title: stands above the game.
            policy: chooses the agent's actions, uint8 (1, channels, height, width) -> (1,).
        """
        self._model = model
        self._frame_stack, self._title, self._policy = frame_stack, title, policy
        self._action_values = algorithm_of(model).action_values

    def begin(self, action_names: Sequence[str]) -> None:
        self._names = action_names
        self._panels = FilmPanels(action_names, self._title)

    def draw(self, picture: np.ndarray, score: float) -> np.ndarray:
        return self._panels.draw(picture, score)

    def __call__(self, observations: np.ndarray) -> np.ndarray:
        """Actions (1,) for uint8 observations (1, channels, height, width)."""
        actions = self._policy(observations)
        self._panels.decide(*self._explain(observations, int(actions[0])))
        return actions

    def _explain(self, observations: np.ndarray, action: int) -> tuple[DecisionView, float]:
        images = torch.as_tensor(observations, device=self._model.device)
        found: list[ActionScores] = []
        with action_scores(self._model) as scores_of:

            def scores(pixels: torch.Tensor) -> torch.Tensor:
                found.append(scores_of(pixels))
                return found[-1].scores

            of_action = torch.tensor([action], device=images.device)
            saliency = strength(gradient(scores, images, of_action), self._frame_stack)[0]
        shown = found[-1].scores[0].detach()
        kind = "Q" if self._action_values else "log p"
        view = DecisionView(
            frames=frames_of(observations, self._frame_stack)[0],
            saliency=saliency,
            scores=(shown if self._action_values else shown.exp()).cpu().numpy(),
            score_name="Q values" if self._action_values else "action probabilities",
            most=None if self._action_values else 1.0,
            explained=f"{kind}({self._names[action]})",
            action=action,
        )
        return view, float(found[-1].values[0].detach())
