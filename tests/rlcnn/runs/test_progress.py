"""How fast something is, as it was of late."""

from __future__ import annotations

import pytest

from rlcnn.runs.progress import StepRate


def test_the_rate_counts_updates_for_as_long_as_they_take() -> None:
    rate = StepRate()
    assert rate.value == 0
    # A second at 1,000 steps/s, then 9 seconds of learning in which 10 are taken: 101 steps/s.
    for _ in range(30):
        rate.add(1000, 1.0)
        after_the_burst = rate.value
        rate.add(10, 9.0)
    assert 80 < rate.value < 101 < after_the_burst < 120


def test_the_rate_follows_a_change() -> None:
    rate = StepRate(time_constant=30)
    for speed in (100, 500):
        for _ in range(150):
            rate.add(speed, 1.0)
        assert rate.value == pytest.approx(speed, rel=0.01)
