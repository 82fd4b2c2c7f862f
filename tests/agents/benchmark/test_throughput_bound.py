"""What the parts of training permit together, against sums done by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agents.benchmark.throughput_bound import overlapped_rate, serial_rate
from agents.config import preset_config


def test_one_resource_does_all_in_turn() -> None:
    # 1/8000 + 1/8000 + 4/16000 = 1/2000
    assert serial_rate(8_000, 8_000, 16_000, samples=4) == pytest.approx(2_000)
    # 1/6000 + 1/12000 + 4/8000 = (2 + 1 + 6)/12000
    assert serial_rate(6_000, 12_000, 8_000, samples=4) == pytest.approx(12_000 / 9)


def test_where_a_gpu_computes_the_slower_side_counts() -> None:
    # The GPU alone: 1/12000 + 4/8000 = 7/12000
    assert overlapped_rate(6_000, 12_000, 8_000, samples=4) == pytest.approx(12_000 / 7)
    assert overlapped_rate(1_000, 12_000, 8_000, samples=4) == 1_000


def test_ppo_learns_from_a_step_once_in_each_epoch() -> None:
    assert preset_config("zoo", "ppo").hyperparameters.samples_per_step == 4


@pytest.mark.parametrize("updates, samples", [(1, 8), (2, 16), (-1, 32)])
def test_dqn_learns_from_a_batch_in_each_update(updates: int, samples: float) -> None:
    config = preset_config("zoo", "dqn")
    config = replace(config, dqn=replace(config.dqn, gradient_steps=updates))
    assert (config.dqn.batch_size, config.dqn.train_freq) == (32, 4)
    assert config.hyperparameters.samples_per_step == samples
