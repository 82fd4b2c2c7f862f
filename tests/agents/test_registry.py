"""The algorithms by name."""

from __future__ import annotations

import inspect
from typing import get_args

import pytest

from agents.config import TrainConfig
from agents.dqn.variant import DQNVariant
from agents.hyperparameters import Algorithm
from agents.registry import ALGORITHMS


@pytest.mark.parametrize("name", get_args(Algorithm))
def test_every_algorithm_has_a_specification_and_a_section(name: Algorithm) -> None:
    spec = ALGORITHMS[name]
    config = TrainConfig(algo=name)
    assert spec.name == name
    assert isinstance(config.hyperparameters, spec.section)
    assert config.algorithm is spec
    assert set(ALGORITHMS) == set(get_args(Algorithm))


@pytest.mark.parametrize("name", get_args(Algorithm))
def test_every_hyperparameter_is_an_argument_of_the_agent(name: Algorithm) -> None:
    arguments = TrainConfig(algo=name).hyperparameters.to_arguments()
    taken = inspect.signature(ALGORITHMS[name].agent).parameters
    if name == "dqn":
        taken = {**taken, **DQNVariant.__dataclass_fields__}
    assert arguments.keys() <= taken.keys()
