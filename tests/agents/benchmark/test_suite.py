"""What is made of the figures measured."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from support.benchmark_results import result_of, whole_result

from agents.benchmark.suite import AlgorithmResult
from rlcnn.runs.files import plain


def test_efficiency_and_speedup_by_hand() -> None:
    result = result_of("ppo")
    assert not result.overlapped
    # 1/8000 + 1/8000 + 4/16000 = 1/2000, and half of that on a machine half as fast.
    assert result.permitted is not None
    assert result.permitted.samples == pytest.approx((2_000, 1_000))
    assert result.efficiency is not None
    assert result.efficiency.samples == pytest.approx((0.75, 0.8))
    assert list(result.speedup) == ["sb3"]
    assert result.speedup["sb3"].samples == pytest.approx((3, 4))


def test_dqn_learns_from_eight_samples_in_each_step() -> None:
    permitted = result_of("dqn").permitted
    assert permitted is not None
    # 1/8000 + 1/8000 + 8/16000 = 3/4000
    assert permitted.samples == pytest.approx((4_000 / 3, 2_000 / 3))


def test_stages_overlap_where_there_is_a_gpu() -> None:
    result = result_of("ppo")
    result = AlgorithmResult(replace(result.config, device="cuda"), result.ceilings, result.agents)
    assert result.permitted is not None
    # The GPU: 1/8000 + 4/16000 = 3/8000; the CPU would permit 8000.
    assert result.permitted.samples == pytest.approx((8_000 / 3, 4_000 / 3))


def test_nothing_is_made_of_what_was_not_measured() -> None:
    result = result_of("ppo")
    agents_only = AlgorithmResult(result.config, {}, result.agents)
    assert agents_only.permitted is None
    assert agents_only.efficiency is None
    assert list(agents_only.speedup) == ["sb3"]
    ceilings_only = AlgorithmResult(result.config, result.ceilings, {})
    assert ceilings_only.permitted is not None
    assert ceilings_only.efficiency is None
    assert ceilings_only.speedup == {}


def test_everything_is_written_as_json() -> None:
    told = json.loads(json.dumps(plain(whole_result().to_json())))
    assert set(told) == {"provenance", "settings", "algorithms", "encoders"}
    ppo = told["algorithms"]["ppo"]
    assert ppo["stages"] == "serial"
    assert ppo["samples_per_step"] == 4
    assert ppo["efficiency"]["median"] == pytest.approx(0.775)
    assert ppo["speedup"]["sb3"]["max"] == pytest.approx(4)
    assert ppo["permitted"]["min"] == pytest.approx(1_000)
    sb3 = ppo["agents"]["sb3"]
    assert sb3["variant"] == "DummyVecEnv, 2 threads"
    assert sb3["peak_host_bytes"] == 2_000_000_000
    assert sb3["replay_bytes_per_transition"] == 7_080
    (row,) = told["encoders"]
    assert row["total_ms"]["samples"] == [30, 32]
