"""Spaces of searches: what ``--search`` takes, and the trainings that values make."""

from __future__ import annotations

import shlex
from dataclasses import replace

import pytest

from agents.config import TrainConfig
from agents.presets import preset_config
from agents.search.space import (
    combinations,
    configured,
    current_values,
    parse_dimension,
    parse_space,
)
from envs.errors import UserError


@pytest.mark.parametrize(
    "text, values, size",
    [
        ("ppo.n-epochs 2 3 4", (2, 3, 4), 3),
        ("ppo.learning-rate 1e-3 2e-3", (1e-3, 2e-3), 2),
        ("ppo.learning-rate log 1e-4 1e-3", (1e-4, 1e-3), float("inf")),
        ("ppo.gamma range 0.98 1", (0.98, 1.0), float("inf")),
        ("ppo.gamma range 0.5 0.9 0.1", (0.5, 0.9), 5),
        ("ppo.n-epochs range 1 8", (1, 8), 8),
        ("ppo.n-epochs range 1 8 3", (1, 8), 3),
        ("num-envs log 8 64", (8, 64), 57),
        ("ppo.target-kl None 0.02", (None, 0.02), 2),
        ("ppo.normalize-advantage on off", (True, False), 2),
        ("encoder nature impala", ("nature", "impala"), 2),
        ("encoder-options.features_dim range 1 3", (1, 3), 3),
        ("ppo.n_epochs 2 3", (2, 3), 2),
        ("algo ppo dqn", ("ppo", "dqn"), 2),
    ],
)
def test_a_dimension_is_read_and_written(
    text: str, values: tuple[object, ...], size: float
) -> None:
    dimension = parse_dimension(text.split())
    assert dimension.values == values
    assert [type(value) for value in dimension.values] == [type(value) for value in values]
    assert dimension.size == size
    assert parse_dimension(shlex.split(dimension.text)) == dimension
    # As options are called on a command line, or by the encoder.
    assert dimension.name in (text.split()[0], text.split()[0].replace("n_e", "n-e"))
    if size < 100:
        assert len(dimension.listed()) == size
        assert all(map(dimension.holds, dimension.listed()))


@pytest.mark.parametrize(
    "text, message",
    [
        ("ppo.learning-rat 1 2", 'Did you mean "ppo.learning-rate"?'),
        ("lr 1e-3 1e-4", 'Did you mean "ppo.learning-rate" or "dqn.learning-rate"'),
        ("ppo.n-epochs", "has no values: expected NAME VALUE VALUE ..., NAME range"),
        ("ppo.n-epochs 3", "a fixed one is --ppo.n-epochs 3"),
        ("ppo.n-epochs 3 3", "gives 3 twice"),
        ("ppo.n-epochs 2.5 3", '"2.5" is not a whole number'),
        ("ppo.n-epochs 0 3", "--ppo.n-epochs 0 must be at least 1"),
        ("ppo.gamma range 0.9 1.5", "--ppo.gamma 1.5 must be at least 0 and at most 1"),
        ("ppo.gamma range 0.9", '"range 0.9": expected range LOW HIGH [STEP]'),
        ("ppo.gamma range 0.9 0.9", "is empty: expected LOW below HIGH"),
        ("ppo.gamma range 0.99 0.9", "is empty: expected LOW below HIGH"),
        ("ppo.gamma range a b", '"a" is not a number'),
        ("ppo.gamma range 0.9 nan", "nan is no number"),
        ("ppo.gamma range 0 1 2", "STEP 2 must be more than 0 and at most 1"),
        ("ppo.gamma 0.9 nan", "nan is not finite"),
        ("ppo.learning-rate log 0 1e-3", "a log range begins above 0"),
        ("ppo.learning-rate log 1e-4 1e-3 1e-4", "expected log LOW HIGH"),
        ("ppo.target-kl range None 1", "None is no number"),
        ("ppo.normalize-advantage 1 0", '"1" is unknown: expected on or off'),
        ("encoder nature imppala", 'Did you mean "impala"?'),
        ("compile on of", 'expected one of auto, on, off. Did you mean "off"?'),
        ("encoder range lenet nature", '--encoder "range" is unknown'),
        ("encoder-options width 1", 'such as "encoder-options.width"'),
        ("env-kwargs mode 1", "the option takes several values"),
        ("seed 1 2", "trials have one seed"),
        ("env ALE/Pong-v5 ALE/Krull-v5", "it changes the task"),
        ("eval-episodes 1 2", "it changes how trials are measured"),
        ("track offline disabled", "it has no effect on what is learned"),
        ("run-dir a b", "unknown option"),
    ],
)
def test_a_dimension_that_is_none_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        parse_dimension(text.split())
    assert message in str(error.value)
    assert str(error.value).startswith("--search ")


def test_a_space_names_each_option_once() -> None:
    with pytest.raises(UserError, match="--search is missing"):
        parse_space([])
    with pytest.raises(UserError, match='names "obs-size" twice'):
        parse_space([["obs-size", "64", "84"], ["obs_size", "44", "64"]])
    space = parse_space([["obs-size", "64", "84"], ["ppo.n-epochs", "range", "1", "5"]])
    assert combinations(space) == 10


def test_values_make_a_training() -> None:
    base = replace(preset_config("fast", "ppo"), encoder_options={"width": 2})
    values = {"obs-size": 64, "ppo.n-epochs": 2, "encoder-options.pooling": "mean"}
    config = configured(base, values)
    assert (config.obs_size, config.ppo.n_epochs) == (64, 2)
    assert config.encoder_options == {"width": 2, "pooling": "mean"}
    assert replace(config, obs_size=84, ppo=base.ppo, encoder_options=base.encoder_options) == base
    # Those of the base are not for another encoder.
    other = configured(base, {"encoder": "impala", "encoder-options.pooling": "mean"})
    assert other.encoder_options == {"pooling": "mean"}


def test_the_present_values_are_known_if_the_space_holds_them() -> None:
    base = TrainConfig()
    inside = [["ppo.batch-size", "128", "256"], ["ppo.learning-rate", "log", "1e-4", "1e-3"]]
    # A batch size of 0 stands for 256.
    assert current_values(base, parse_space(inside)) == {
        "ppo.batch-size": 256,
        "ppo.learning-rate": 2.5e-4,
    }
    for outside in (
        ["obs-size", "44", "64"],
        ["ppo.gamma", "range", "0.5", "0.9"],
        ["num-envs", "range", "1", "9", "4"],
        ["encoder-options.width", "1", "2"],
    ):
        assert current_values(base, parse_space([*inside, outside])) is None
