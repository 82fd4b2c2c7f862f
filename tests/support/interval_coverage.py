"""Simulated studies with a known true difference, which measure the coverage of intervals.

    python tests/support/interval_coverage.py rlcnn/stats/calibration.json

simulates them all and writes the table that :mod:`rlcnn.stats.calibration` reads (minutes).
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

import numpy as np

from envs.errors import UserError
from rlcnn.runs.files import write_json_atomic
from rlcnn.stats.aggregate import aggregate_iqm, aggregate_mean
from rlcnn.stats.calibration import OURS, PERCENTILE, WELCH
from rlcnn.stats.checks import FloatArray
from rlcnn.stats.intervals import t_parts, t_reach
from rlcnn.stats.scenarios import (
    CONFIDENCE,
    SCENARIOS,
    Scenario,
    draw_studies,
    game_scales,
    true_difference,
)

RUNS = (3, 5, 10)
GAMES = (1, 3)

_SEED = 20_261_121
_BATCH = 25
_REPS = 400
_SLACK = 1e-12

Bounds = tuple[FloatArray, FloatArray]


# -- methods: bounds of scores (studies, runs, games) ----------------------------------------------


def _t_bounds(treatment: FloatArray, control: FloatArray, larger_variance: bool) -> Bounds:
    point, error, freedom = t_parts(treatment, control, larger_variance)
    reach = t_reach(error, freedom, CONFIDENCE)
    return point - reach, point + reach


def _bootstrap_bounds(
    treatment: FloatArray, control: FloatArray, rng: np.random.Generator
) -> dict[str, Bounds]:
    """Percentile bootstraps and the bootstrap-t (Efron and Tibshirani 1993, section 12.5)."""
    first, second = (_resampled(scores, rng) for scores in (treatment, control))
    tails = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
    bounds = {}
    for name, aggregate in (("IQM", aggregate_iqm), ("mean", aggregate_mean)):
        differences = aggregate(first) - aggregate(second)
        low, high = np.quantile(differences, tails, axis=1)
        bounds[f"percentile bootstrap, {name}"] = low, high
    point, error, _ = t_parts(treatment, control, larger_variance=False)
    points, errors, _ = t_parts(first, second, larger_variance=False)
    low, high = np.quantile(_ratio(points - point[:, None], errors), tails, axis=1)
    bounds["bootstrap-t"] = point - high * error, point - low * error
    return bounds


def _resampled(scores: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Bootstrap samples (studies, reps, runs, games), the same rows for all studies of a batch."""
    _, runs, games = scores.shape
    return scores[:, rng.integers(runs, size=(_REPS, runs, games)), np.arange(games)]


def _permutation_covers(
    treatment: FloatArray, control: FloatArray, truth: float, rng: np.random.Generator
) -> FloatArray:
    """Whether the inverted studentised permutation test keeps the true difference."""
    _, runs, games = treatment.shape
    pooled = np.concatenate([treatment - truth, control], axis=1)
    order = rng.random((_REPS, 2 * runs, games)).argsort(axis=1)
    values = _studentised(pooled[:, order, np.arange(games)], runs)
    seen = _studentised(pooled, runs)[:, None]
    tails = [(values >= seen - _SLACK).sum(axis=1), (values <= seen + _SLACK).sum(axis=1)]
    return 2 * (np.minimum(*tails) + 1) / (_REPS + 1) > 1 - CONFIDENCE


def _studentised(pooled: FloatArray, runs: int) -> FloatArray:
    point, error, _ = t_parts(pooled[..., :runs, :], pooled[..., runs:, :], larger_variance=False)
    return _ratio(point, error)


def _ratio(top: FloatArray, bottom: FloatArray) -> FloatArray:
    # A resample without spread gives no information about zero, or full information.
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.nan_to_num(top / bottom, nan=0.0, posinf=1e9, neginf=-1e9)


# -- cells -----------------------------------------------------------------------------------------


def ceiling(scenario: Scenario, runs: int, games: int) -> float:
    """The largest possible coverage of an interval about as wide as the observed spread.

    In some studies of bimodal scores, all runs of each arm in each game take off by chance, or none
    does, with a difference that is not the true one. These runs do not show it.
    """
    if scenario.takes_off is None:
        return 1.0
    outcomes = []
    for first, second in itertools.product((0, 1), repeat=2):
        shares = zip((first, second), scenario.takes_off, strict=True)
        chance = np.prod([(share if up else 1 - share) ** runs for up, share in shares])
        outcomes.append((first - second, chance))
    truth = true_difference(scenario, games)
    missed = 0.0
    for pattern in itertools.product(outcomes, repeat=games):
        steps, chances = zip(*pattern, strict=True)
        if not np.isclose(np.mean(np.array(steps) * game_scales(games)), truth):
            missed += float(np.prod(chances))
    return 1 - missed


def t_cell(name: str, runs: int, games: int, studies: int, seed: int = _SEED) -> dict[str, Any]:
    """Coverage of the two t intervals, and the ratio of their median widths."""
    scenario = SCENARIOS[name]
    rng = np.random.default_rng([seed, runs, games])
    treatment, control = draw_studies(scenario, studies, (runs, runs), games, rng)
    truth = true_difference(scenario, games)
    bounds = {
        WELCH: _t_bounds(treatment, control, larger_variance=False),
        OURS: _t_bounds(treatment, control, larger_variance=True),
    }
    return _coverages(bounds, dict.fromkeys(bounds, truth), bounds[WELCH])


def resampling_cell(
    name: str, runs: int, games: int, studies: int, seed: int = _SEED
) -> dict[str, Any]:
    """Coverage of the intervals that resample, and their median widths beside Welch's."""
    scenario = SCENARIOS[name]
    rng = np.random.default_rng([seed, runs, games])
    truth = true_difference(scenario, games)
    batches: list[dict[str, Bounds]] = []
    kept = []
    # A batch shares its resamples; small batches keep this from adding noise.
    for _ in range(0, studies, _BATCH):
        treatment, control = draw_studies(scenario, _BATCH, (runs, runs), games, rng)
        welch = _t_bounds(treatment, control, larger_variance=False)
        batches.append({WELCH: welch, **_bootstrap_bounds(treatment, control, rng)})
        kept.append(_permutation_covers(treatment, control, truth, rng))
    bounds = {
        method: (
            np.concatenate([batch[method][0] for batch in batches]),
            np.concatenate([batch[method][1] for batch in batches]),
        )
        for method in batches[0]
    }
    welch = bounds.pop(WELCH)
    truths = dict.fromkeys(bounds, truth)
    truths[PERCENTILE] = _true_iqm_difference(scenario, games)
    cell = _coverages(bounds, truths, welch)
    cell["coverage"]["permutation, inverted"] = float(np.mean(np.concatenate(kept)))
    return cell


def _coverages(
    bounds: dict[str, Bounds], truths: dict[str, float], welch: Bounds
) -> dict[str, Any]:
    usual = np.median(welch[1] - welch[0])
    return {
        "coverage": {
            method: float(np.mean((low <= truths[method]) & (truths[method] <= high)))
            for method, (low, high) in bounds.items()
        },
        "width": {
            method: float(np.median(high - low) / usual) for method, (low, high) in bounds.items()
        },
    }


def _true_iqm_difference(scenario: Scenario, games: int) -> float:
    """The difference for two populations, from enough runs to neglect the error."""
    rng = np.random.default_rng(_SEED)
    treatment, control = draw_studies(scenario, 1, (400_000, 400_000), games, rng)
    return float(aggregate_iqm(treatment)[0] - aggregate_iqm(control)[0])


def simulate(studies: int = 20_000, resampled_studies: int = 1_000) -> dict[str, Any]:
    """The whole table."""
    cells = []
    for name, games, runs in itertools.product(SCENARIOS, GAMES, RUNS):
        quick = t_cell(name, runs, games, studies)
        slow = resampling_cell(name, runs, games, resampled_studies)
        cells.append(
            {
                "scenario": name,
                "games": games,
                "runs": runs,
                "ceiling": round(ceiling(SCENARIOS[name], runs, games), 4),
                **{
                    key: {m: round(v, 4) for m, v in {**quick[key], **slow[key]}.items()}
                    for key in ("coverage", "width")
                },
            }
        )
    return {
        "confidence": CONFIDENCE,
        "studies": studies,
        "resampled_studies": resampled_studies,
        "resamples": _REPS,
        "seed": _SEED,
        "cells": cells,
    }


def main() -> None:
    """Writes the table to the given path."""
    if len(sys.argv) != 2:
        print("error: expected one argument, the path to write to", file=sys.stderr)
        sys.exit(2)
    try:
        write_json_atomic(Path(sys.argv[1]), simulate())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
