"""How fast a training of a study goes, and how fast its agents are judged: measured in seconds."""

from __future__ import annotations

import time
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm

from agents.config import TrainConfig
from agents.evaluate.evaluation import evaluate_agent, game_environments
from agents.evaluate.random_agent import random_length
from agents.measure.learners import our_agent
from rlcnn.accelerate.devices import use_threads

# So long is measured, but never more than a tenth of the training.
CALIBRATION_STEPS = 4_096
CALIBRATION_SECONDS = 20.0

# So long games are watched, but never for more steps than the training has.
JUDGING_SECONDS = 3.0
LONGEST_GAME = 2_500


@dataclass(frozen=True)
class Speed:
    """How fast a kind of training goes.

    Attributes:
        training: agent steps per second.
        judging: agent steps per second of the games by which agents are judged, all together.
        game: agent steps of one of them, when actions are drawn at random.
    """

    training: float
    judging: float
    game: float

    def seconds(self, config: TrainConfig, done: int) -> tuple[float, float]:
        """What is left of a training that took ``done`` steps: its own time, and its evaluations'.

        Games are taken to last as long as they do at random.
        """
        left = max(0, config.total_steps - done)
        judged = int(config.eval_episodes > 0)
        if config.eval_every and judged and left:
            judged += (config.total_steps - 1) // config.eval_every - done // config.eval_every
        games = judged * config.eval_episodes
        return left / self.training, games * self.game / self.judging

    def to_json(self) -> dict[str, float]:
        """As JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Any) -> Speed | None:
        """What :meth:`to_json` wrote; None of anything else, such as an earlier release's."""
        try:
            return cls(**{name: float(value) for name, value in document.items()})
        except (AttributeError, TypeError, ValueError):
            return None


def measure_speed(config: TrainConfig) -> Speed:
    """Measures some thousand steps of a training, and some seconds of games.

    The first iteration, in which code may be compiled, is not counted.

    Raises:
        UserError: it cannot be built with these options.
    """
    config = config.resolve()
    # Neither filling a replay nor its memory is to be measured.
    short = config.hyperparameters.with_short_warm_up(config.num_envs)
    config = config.with_hyperparameters(short)
    with use_threads(config.num_threads), closing(our_agent(config)) as learner:
        if learner.warm_up_steps:
            learner.learn(learner.warm_up_steps)
        learner.learn(learner.least_steps)
        enough = min(CALIBRATION_STEPS, config.total_steps // 10)
        steps, began = 0, time.monotonic()
        while True:
            steps += learner.learn(learner.least_steps)
            seconds = time.monotonic() - began
            if steps >= enough or seconds >= CALIBRATION_SECONDS:
                break
        judging = _judging_rate(learner.model, config)
    length = random_length(config, most=min(LONGEST_GAME, config.total_steps))
    return Speed(steps / seconds, judging, length)


class _Enough(Exception):  # noqa: N818
    """So much of an evaluation tells how fast it is."""


def _judging_rate(model: BaseAlgorithm, config: TrainConfig) -> float:
    """Agent steps per second of an evaluation's games, which are not played to their end."""
    environments = game_environments(config.eval_episodes)
    choices, began = 0, time.monotonic()

    def count() -> None:
        nonlocal choices, began
        if choices == 0:
            # Environments are made by now.
            began = time.monotonic()
        elif (
            time.monotonic() - began >= JUDGING_SECONDS
            or choices * environments >= config.total_steps
        ):
            raise _Enough
        choices += 1

    with suppress(_Enough):
        evaluate_agent(model, config, on_step=count)
    return choices * environments / (time.monotonic() - began)
