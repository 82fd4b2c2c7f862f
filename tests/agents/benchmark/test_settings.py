"""What a benchmark is told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from agents.benchmark.settings import Settings
from agents.config import preset_config
from envs.errors import UserError


@pytest.mark.parametrize(
    "parts, algorithms",
    [
        (("ceilings", "ppo", "dqn", "encoders"), ["ppo", "dqn"]),
        (("dqn",), ["dqn"]),
        (("ceilings", "dqn"), ["dqn"]),
        (("ceilings",), ["ppo", "dqn"]),
        (("encoders",), []),
    ],
)
def test_ceilings_alone_are_those_of_both_algorithms(parts: Any, algorithms: list[str]) -> None:
    assert Settings(parts=parts).algorithms == algorithms


def test_each_algorithm_has_its_own_number_of_environments() -> None:
    settings = Settings(dqn_num_envs=3)
    assert settings.agent_config("ppo").num_envs == 8
    assert settings.agent_config("dqn").num_envs == 3


def test_dqn_is_measured_as_it_is_for_nearly_all_of_a_training() -> None:
    dqn = Settings().agent_config("dqn").dqn
    assert dqn.learning_starts == 1_000
    assert dqn.exploration_initial_eps == dqn.exploration_final_eps == 0.01
    # What the literature says otherwise stays.
    zoo = preset_config("zoo", "dqn").dqn
    changed = {"learning_starts": 1_000, "exploration_initial_eps": 0.01}
    assert dqn == replace(zoo, **changed)


def test_ceilings_are_not_compiled_where_compiling_is_off() -> None:
    train = replace(preset_config("zoo", "ppo"), device="cpu", compile="off")
    assert not Settings(train=train).compile_ceilings


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"parts": ()}, "--parts names nothing to measure"),
        ({"parts": ("ceiling",)}, '--parts "ceiling" is unknown.* Did you mean "ceilings"'),
        ({"peers": ("sb4",)}, '--peers "sb4" is unknown.* Did you mean "sb3"'),
        ({"image_models": ("resnet17",)}, '"resnet17" is unknown.* Did you mean "resnet18"'),
        ({"rounds": 0}, "--rounds 0 must be at least 1"),
        ({"encoder_batch": 0}, "--encoder-batch 0 must be at least 1"),
        ({"dqn_num_envs": 0}, "--dqn-num-envs 0 must be at least 1"),
        ({"seconds": 0.0}, "--seconds 0.0 must be finite and more than 0"),
        ({"seconds": float("nan")}, "--seconds nan must be finite"),
        ({"seconds": float("inf")}, "--seconds inf must be finite"),
        ({"train": preset_config("zoo", "ppo")}, None),
        ({"train": replace(preset_config("zoo", "ppo"), env="CartPole-v1")}, "unknown Atari game"),
        ({"train": replace(preset_config("zoo", "ppo"), num_envs=0)}, "--num-envs 0"),
    ],
)
def test_values_are_checked_in_one_line(changes: dict[str, Any], message: str | None) -> None:
    settings = Settings(**changes)
    if message is None:
        settings.validate()
        return
    with pytest.raises(UserError, match=message) as error:
        settings.validate()
    assert "\n" not in str(error.value)
