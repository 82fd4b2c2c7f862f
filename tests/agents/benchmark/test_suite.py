"""Settings of a benchmark, and the figures calculated from its measurements."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from support.benchmark_results import result_of, whole_result

from agents.benchmark.suite import AlgorithmResult, Settings
from agents.presets import preset_config
from envs.errors import UserError
from rlcnn.runs.files import plain


def test_efficiency_and_speedup_by_hand() -> None:
    result = result_of("ppo")
    assert not result.overlapped
    # 1/8000 + 1/8000 + 4/16000 = 1/2000, and half of that on a machine half as fast.
    assert result.bound is not None
    assert result.bound.samples == pytest.approx((2_000, 1_000))
    assert result.efficiency is not None
    assert result.efficiency.samples == pytest.approx((0.75, 0.8))
    assert list(result.speedup) == ["sb3"]
    assert result.speedup["sb3"].samples == pytest.approx((3, 4))


def test_dqn_learns_from_eight_samples_in_each_step() -> None:
    bound = result_of("dqn").bound
    assert bound is not None
    # 1/8000 + 1/8000 + 8/16000 = 3/4000
    assert bound.samples == pytest.approx((4_000 / 3, 2_000 / 3))


def test_stages_overlap_where_there_is_a_gpu() -> None:
    result = result_of("ppo")
    result = AlgorithmResult(replace(result.config, device="cuda"), result.ceilings, result.agents)
    assert result.bound is not None
    # The GPU: 1/8000 + 4/16000 = 3/8000; the CPU would allow 8000.
    assert result.bound.samples == pytest.approx((8_000 / 3, 4_000 / 3))


def test_figures_of_missing_measurements_are_missing() -> None:
    result = result_of("ppo")
    agents_only = AlgorithmResult(result.config, {}, result.agents)
    assert agents_only.bound is None
    assert agents_only.efficiency is None
    assert list(agents_only.speedup) == ["sb3"]
    ceilings_only = AlgorithmResult(result.config, result.ceilings, {})
    assert ceilings_only.bound is not None
    assert ceilings_only.efficiency is None
    assert ceilings_only.speedup == {}


def test_everything_is_written_as_json() -> None:
    document = json.loads(json.dumps(plain(whole_result().to_json())))
    assert set(document) == {"provenance", "settings", "algorithms", "encoders"}
    ppo = document["algorithms"]["ppo"]
    assert ppo["stages"] == "serial"
    assert ppo["samples_per_step"] == 4
    assert ppo["efficiency"]["median"] == pytest.approx(0.775)
    assert ppo["speedup"]["sb3"]["max"] == pytest.approx(4)
    assert ppo["permitted"]["min"] == pytest.approx(1_000)
    sb3 = ppo["agents"]["sb3"]
    assert sb3["variant"] == "DummyVecEnv, 2 threads"
    assert sb3["peak_host_bytes"] == 2_000_000_000
    assert sb3["replay_bytes_per_transition"] == 7_080
    (row,) = document["encoders"]
    assert row["total_ms"]["samples"] == [30, 32]


@pytest.mark.parametrize(
    "parts, algorithms",
    [
        (("ceilings", "ppo", "dqn", "encoders"), ["ppo", "dqn"]),
        (("dqn",), ["dqn"]),
        (("ceilings", "dqn"), ["dqn"]),
        (("ceilings",), ["ppo", "dqn"]),
        (("ceilings", "pqn"), ["pqn"]),
        (("encoders",), []),
    ],
)
def test_ceilings_alone_are_those_of_ppo_and_dqn(parts: Any, algorithms: list[str]) -> None:
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
        ({"seconds": 0.0}, "--seconds 0.0 must be more than 0"),
        ({"seconds": float("nan")}, "--seconds nan must be more than 0"),
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


@pytest.mark.parametrize(
    ("preset", "algorithms"), [("zoo", ["ppo", "dqn"]), ("iqn", ["dqn"]), ("pqn", ["pqn"])]
)
def test_ceilings_alone_are_those_of_the_presets_algorithms(
    preset: str, algorithms: list[str]
) -> None:
    settings = Settings(train=preset_config(preset), parts=("ceilings",))
    assert settings.algorithms == algorithms
    settings.check_preset()
