"""Parts of training, and supervised training, as learners."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.tiny_agents import tiny

from agents.benchmark.stage_learners import (
    StageLearner,
    SupervisedLearner,
    emulators_alone,
    environments_alone,
    update_alone,
)
from agents.config import TrainConfig


@pytest.mark.parametrize(
    "make, units", [(emulators_alone, 2), (environments_alone, 2), (update_alone, 8)]
)
def test_a_part_counts_whole_pieces_of_its_work(
    make: Callable[[TrainConfig], StageLearner], units: int
) -> None:
    learner = make(tiny("ppo"))
    assert learner.least_steps % units == 0
    assert learner.learn(1) == units
    assert learner.learn(3 * units) == 3 * units
    learner.close()


def test_supervised_training_goes_on_from_epoch_to_epoch() -> None:
    learner = SupervisedLearner(tiny("ppo"), images=8, batch_size=4)
    assert learner.least_steps == 8
    assert learner.learn(5) == 8
    assert learner.learn(12) == 12
    learner.close()
