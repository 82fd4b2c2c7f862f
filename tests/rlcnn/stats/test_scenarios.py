"""What our interval covers in studies of any design, by simulation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rlcnn.stats import coverage_range, simulated_coverage
from rlcnn.stats.intervals import t_parts, t_reach

Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


def failing(share: float, deviation: float = 0.2) -> Draw:
    """Scores about 1, of which a share is 0."""
    return lambda rng, size: (rng.random(size) >= share) * rng.normal(1.0, deviation, size)


def lognormal(scale: float) -> Draw:
    return lambda rng, size: scale * rng.lognormal(size=size)


def exponential(scale: float) -> Draw:
    return lambda rng, size: rng.exponential(scale, size)


def bimodal(share: float) -> Draw:
    return lambda rng, size: (rng.random(size) < share) + rng.normal(0.0, 0.1, size)


def covered(
    treatment: Draw, control: Draw, difference: float, runs: tuple[int, int], games: int
) -> float:
    """The share of 10,000 studies whose interval holds the difference; games are alike."""
    rng = np.random.default_rng([*runs, games])
    scores = (
        draw(rng, (10_000, count, games))
        for draw, count in zip((treatment, control), runs, strict=True)
    )
    point, error, freedom = t_parts(*scores)
    return float(np.mean(abs(point - difference) <= t_reach(error, freedom, 0.95)))


def margin(*shares: float) -> float:
    """Four standard errors of a difference of two shares, each of 10,000 studies."""
    return 4 * math.sqrt(sum(max(share * (1 - share), 0.01) for share in shares) / 10_000)


def slow(*runs: int) -> Any:
    """A design whose coverage is simulated for seconds."""
    return pytest.param(runs, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    "runs", [(5, 5), slow(7, 10), slow(5, 10), slow(10, 5), slow(4, 8), slow(3, 10)]
)
@pytest.mark.parametrize(
    ("treatment", "control", "difference"),
    [
        (failing(0.2), failing(0.0), -0.2),
        (failing(0.25), failing(0.0), -0.25),
        (failing(0.2), failing(0.2), 0.0),
        (lognormal(2.0), lognormal(1.0), math.exp(0.5)),
        (exponential(3.0), exponential(1.0), 2.0),
        (bimodal(0.9), bimodal(0.5), 0.4),
    ],
    ids=["a fifth fails", "a quarter fails", "both fail", "lognormal", "exponential", "bimodal"],
)
def test_the_coverage_of_other_studies_is_in_the_range_of_their_design(
    treatment: Draw, control: Draw, difference: float, runs: tuple[int, int]
) -> None:
    for games in (1, 3):
        share = covered(treatment, control, difference, runs, games)
        least, greatest = coverage_range(runs, games)
        assert least - margin(least, share) <= share <= greatest + margin(greatest, share)


@pytest.mark.parametrize("runs", [(3, 10), slow(4, 8), slow(5, 10), slow(7, 10)])
def test_more_runs_of_one_arm_cost_no_coverage(runs: tuple[int, int]) -> None:
    both, fewer = (simulated_coverage(counts, 1) for counts in (runs, (runs[0], runs[0])))
    for scores in (
        "normal",
        "a fifth of one arm's runs fail",
        "lognormal, one arm twice the other",
    ):
        assert both[scores] >= fewer[scores] - margin(both[scores], fewer[scores])
        assert both[scores] >= 0.93 - margin(both[scores])


def test_the_order_of_the_arms_does_not_matter() -> None:
    assert simulated_coverage((3, 5), 2) == simulated_coverage((5, 3), 2)


def test_five_runs_miss_rare_failures_and_forty_do_not() -> None:
    # A fifth that fails is not drawn in a third of studies with five runs.
    assert coverage_range((5, 5), 1)[0] < 0.85
    assert coverage_range((40, 40), 1)[0] > 0.93
