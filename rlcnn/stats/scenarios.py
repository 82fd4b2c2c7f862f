"""Distributions of scores with a known true difference, and the coverage of our interval there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import NamedTuple

import numpy as np

from rlcnn.stats.checks import FloatArray
from rlcnn.stats.intervals import t_parts, t_reach

CONFIDENCE = 0.95

_SEED = 20_261_127
_STUDIES, _FEWEST_STUDIES = 10_000, 500
# Scores of an arm in one simulation at most, which take a second.
_MOST_SCORES = 500_000
_TAKEN_OFF, _NOT_TAKEN_OFF = (1.0, 0.1), (0.0, 0.05)

Draw = Callable[[np.random.Generator, tuple[int, ...]], FloatArray]


class Scenario(NamedTuple):
    """Distributions of the runs of two arms in one game, before its location and scale.

    Attributes:
        treatment: draws the treatment's scores in a given shape.
        control: draws the control's.
        difference: of the two means.
        takes_off: if runs end either near 1 or near 0, the probabilities of 1 for both arms.
    """

    treatment: Draw
    control: Draw
    difference: float = 0.0
    takes_off: tuple[float, float] | None = None


def _drawn(distribution: str, scale: float = 1.0) -> Draw:
    return lambda rng, size: scale * getattr(rng, distribution)(size=size)


def _bimodal(share: float) -> Draw:
    def draw(rng: np.random.Generator, size: tuple[int, ...]) -> FloatArray:
        off = rng.random(size) >= share
        return np.where(off, rng.normal(*_NOT_TAKEN_OFF, size), rng.normal(*_TAKEN_OFF, size))

    return draw


def _failing(share: float, deviation: float) -> Draw:
    def draw(rng: np.random.Generator, size: tuple[int, ...]) -> FloatArray:
        return np.where(rng.random(size) < share, 0.0, rng.normal(1.0, deviation, size))

    return draw


def _one_arm_fails(share: float, deviation: float) -> Scenario:
    arms = _failing(share, deviation), _failing(0.0, deviation)
    return Scenario(*arms, difference=-share, takes_off=(1 - share, 1.0))


SCENARIOS = {
    "normal": Scenario(_drawn("normal"), _drawn("normal")),
    "unequal variance (4:1 in deviation)": Scenario(_drawn("normal"), _drawn("normal", 0.25)),
    "lognormal": Scenario(_drawn("lognormal"), _drawn("lognormal")),
    "lognormal, one arm twice the other": Scenario(
        _drawn("lognormal", 2.0), _drawn("lognormal"), difference=float(np.exp(0.5))
    ),
    "bimodal, 70% and 70% take off": Scenario(_bimodal(0.7), _bimodal(0.7), 0.0, (0.7, 0.7)),
    "bimodal, 90% and 50% take off": Scenario(_bimodal(0.9), _bimodal(0.5), 0.4, (0.9, 0.5)),
    "exponential, one arm twice the other": Scenario(
        _drawn("exponential", 2.0), _drawn("exponential", 1.0), difference=1.0
    ),
    "a fifth of one arm's runs fail": _one_arm_fails(0.2, 0.2),
    "a quarter of one arm's runs fail": _one_arm_fails(0.25, 0.2),
    "a fifth of one arm's runs fail, the others are close": _one_arm_fails(0.2, 0.1),
    "a tenth of one arm's runs fail, the others are close": _one_arm_fails(0.1, 0.1),
}
"""Lognormal: the logarithm's deviation is 1. Bimodal: a run that does not take off stays near 0
instead of 1. A run that fails scores 0; the others are normal about 1, with a deviation of 0.2 or,
where they are close, 0.1."""


def draw_studies(
    scenario: Scenario, studies: int, runs: tuple[int, int], games: int, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Scores of treatment and control, (studies, runs, games), in games of different scales."""
    places = np.linspace(0.0, 1.0, games)
    treatment = scenario.treatment(rng, (studies, runs[0], games))
    control = scenario.control(rng, (studies, runs[1], games))
    return places + game_scales(games) * treatment, places + game_scales(games) * control


def true_difference(scenario: Scenario, games: int) -> float:
    """The true difference of the means over runs and games."""
    return scenario.difference * float(game_scales(games).mean())


def game_scales(games: int) -> FloatArray:
    """Factors of the scores of each game, 1 to 1/4."""
    return np.geomspace(1.0, 0.25, games)


def simulated_coverage(
    runs: tuple[int, int], games: int, confidence: float = CONFIDENCE
) -> Mapping[str, float]:
    """The share of simulated studies of one design whose interval contains the true difference.

    10,000 studies of each kind of scores, fewer for designs with very many runs. If the arms have
    different numbers of runs, it gives the smaller share of the two ways to assign the scores.
    ``runs`` are those of treatment and control.
    """
    return _simulated_coverage(min(runs), max(runs), games, confidence)


def coverage_range(
    runs: tuple[int, int], games: int, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Minimum and maximum of :func:`simulated_coverage` over the kinds of scores."""
    shares = simulated_coverage(runs, games, confidence).values()
    return min(shares), max(shares)


@cache
def _simulated_coverage(fewer: int, more: int, games: int, confidence: float) -> dict[str, float]:
    studies = max(_FEWEST_STUDIES, min(_STUDIES, _MOST_SCORES // (more * games)))
    rng = np.random.default_rng([_SEED, fewer, more, games])

    def covered(scenario: Scenario, runs: tuple[int, int]) -> float:
        point, error, freedom = t_parts(*draw_studies(scenario, studies, runs, games, rng))
        off = np.abs(point - true_difference(scenario, games))
        return float(np.mean(off <= t_reach(error, freedom, confidence)))

    orders = dict.fromkeys([(fewer, more), (more, fewer)])
    return {
        name: min(covered(scenario, runs) for runs in orders)
        for name, scenario in SCENARIOS.items()
    }
