"""Transfer metrics from learning curves (Taylor and Stone 2009, section 2.2 and figure 3).

All metrics use normalised scores, where acting at random is 0, and have the interval of their
difference between two arms. They count the cost on the game itself, or the pretraining with it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.integrate import trapezoid

from envs.errors import UserError, nearest
from rlcnn.stats.checks import FloatArray, check_arm
from rlcnn.stats.intervals import Difference, Ratio, difference_interval, ratio_interval


@dataclass(frozen=True)
class Curves:
    """Learning curves of one arm in one game.

    Attributes:
        spent: steps, frames or seconds from the start of training on the game to each
            evaluation, increasing, (runs, points).
        scores: normalised, (runs, points).
    """

    spent: FloatArray
    scores: FloatArray

    @classmethod
    def of(cls, spent: ArrayLike, scores: ArrayLike, name: str = "the curves") -> Curves:
        """Checks curves, and broadcasts ``spent`` if it is (points,), equal for all runs.

        Raises:
            UserError: ragged, NaN or infinite values, fewer than 2 points, shapes that do not
                agree, or ``spent`` that does not increase from 0 or more.
        """
        values = check_arm(name, scores)
        try:
            places = np.broadcast_to(np.asarray(spent, dtype=float), values.shape)
        except ValueError:
            raise UserError(
                f'"{name}" has scores of shape {values.shape} at steps of shape {np.shape(spent)}:'
                " expected as many points"
            ) from None
        if values.shape[1] < 2:
            raise UserError(f'"{name}" has {values.shape[1]} point: expected at least 2')
        increasing = (np.diff(places, axis=1) > 0).all() and (places[:, 0] >= 0).all()
        if not (increasing and np.isfinite(places).all()):
            raise UserError(f'"{name}" must be given at steps that increase, from 0 or more')
        return cls(places, values)

    def at(self, budget: float, before: float = 0.0) -> FloatArray:
        """Scores when ``budget`` is spent, (runs,), by linear interpolation.

        ``budget`` includes the cost ``before`` training began; until then the agent acts at random,
        with score 0.
        """
        if budget < before:
            return np.zeros(len(self.scores))
        curves = zip(self.spent, self.scores, strict=True)
        return np.array([np.interp(budget - before, *curve) for curve in curves])

    def mean_until(self, budget: float, before: float = 0.0) -> FloatArray:
        """Area under each curve from 0 to ``budget``, divided by it, (runs,).

        By trapezoids; before the first evaluation, its score applies.
        """
        if budget <= before:
            return np.zeros(len(self.scores))
        areas = []
        for spent, scores in zip(self.spent, self.scores, strict=True):
            places = np.array([0.0, *spent[spent < budget - before], budget - before])
            areas.append(trapezoid(np.interp(places, spent, scores), places))
        return np.array(areas) / budget

    def time_to(self, threshold: float, before: float = 0.0) -> FloatArray:
        """Cost at which each curve first reaches ``threshold``, (runs,); infinite if never."""
        times = []
        for spent, scores in zip(self.spent, self.scores, strict=True):
            reached = np.flatnonzero(scores >= threshold)
            if len(reached) == 0:
                times.append(math.inf)
                continue
            rise = slice(max(reached[0] - 1, 0), reached[0] + 1)
            times.append(before + np.interp(threshold, scores[rise], spent[rise]))
        return np.array(times)


@dataclass(frozen=True)
class TimeToThreshold:
    """Times at which runs reached a score; runs that never did are censored at the budget.

    Attributes:
        threshold: the normalised score.
        reached: share of runs of treatment and control that reached it within the budget.
        restricted_means: of treatment and control, the mean of the smaller of time to the
            threshold and budget.
        saved: the control's restricted mean minus the treatment's; more is better.
    """

    threshold: float
    reached: tuple[float, float]
    restricted_means: tuple[float, float]
    saved: Difference


@dataclass(frozen=True)
class TransferMetrics:
    """The gain of a treatment over a control.

    Attributes:
        pretraining: counted cost of the treatment before training, in the curves' units.
        budgets: game -> cost up to which both arms are compared.
        jumpstart: gain in the score at the first evaluation; None if pretraining counts, because
            the arms are then evaluated at different costs.
        asymptotic: gain in the score when the budget is spent.
        area: gain in the mean score over the budget.
        transfer_ratio: ``area`` as a multiple of the control's mean score; None if that mean is
            not clearly above zero.
        time: to the threshold.
    """

    pretraining: float
    budgets: Mapping[str, float]
    jumpstart: Difference | None
    asymptotic: Difference
    area: Difference
    transfer_ratio: Ratio | None
    time: TimeToThreshold


def transfer_metrics(
    treatment: Mapping[str, Curves],
    control: Mapping[str, Curves],
    threshold: float,
    *,
    pretraining: float = 0.0,
    confidence: float = 0.95,
) -> TransferMetrics:
    """Compares learning curves of two arms, by game, over games with equal weight.

    Both arms are compared up to the budget that all their runs have spent. The time to a threshold
    is compared by its restricted mean (Royston and Parmar 2013), the mean of the smaller of time
    and budget. It exists however few runs reach the threshold; a median needs half of them. It
    depends on the budget, and a run that never reaches the threshold counts with the whole budget,
    so read it together with the share that reached it.

    The arms need at least 2 runs. ``threshold`` is a normalised score, in all games. The
    treatment's curves begin ``pretraining`` later, the cost of its pretraining in their units.

    Raises:
        UserError: a game that only one arm has, different numbers of runs in an arm's games, or
            invalid values.
    """
    games = _common_games(treatment, control)
    for name, value in (("threshold", threshold), ("pretraining", pretraining)):
        if not math.isfinite(value):
            raise UserError(f"{name} {value} must be a finite number")
    if pretraining < 0:
        raise UserError(f"pretraining {pretraining} must be at least 0")
    arms = ((treatment, pretraining), (control, 0.0))
    budgets = {
        game: float(min((curves[game].spent[:, -1] + before).min() for curves, before in arms))
        for game in games
    }
    limits = np.array(list(budgets.values()))
    finals, areas, times, reached = [], [], [], []
    for curves, before in arms:
        finals.append(_stack(curves[game].at(budgets[game], before) for game in games))
        areas.append(_stack(curves[game].mean_until(budgets[game], before) for game in games))
        taken = _stack(curves[game].time_to(threshold, before) for game in games)
        reached.append(float((taken <= limits).mean()))
        times.append(np.minimum(taken, limits))
    jumpstart = None
    if pretraining == 0:
        first, second = (_stack(curves[game].scores[:, 0] for game in games) for curves, _ in arms)
        jumpstart = difference_interval(first, second, confidence)
    ratio = ratio_interval(areas[0], areas[1], confidence)
    if ratio is not None:
        ratio = Ratio(*(value - 1 for value in ratio)) if areas[1].mean() > 0 else None
    return TransferMetrics(
        pretraining=pretraining,
        budgets=budgets,
        jumpstart=jumpstart,
        asymptotic=difference_interval(finals[0], finals[1], confidence),
        area=difference_interval(areas[0], areas[1], confidence),
        transfer_ratio=ratio,
        time=TimeToThreshold(
            threshold,
            (reached[0], reached[1]),
            (float(times[0].mean()), float(times[1].mean())),
            difference_interval(times[1], times[0], confidence),
        ),
    )


def both_budgets(
    treatment: Mapping[str, Curves],
    control: Mapping[str, Curves],
    threshold: float,
    pretraining: float,
    confidence: float = 0.95,
) -> tuple[TransferMetrics, TransferMetrics]:
    """:func:`transfer_metrics` without and with the cost of pretraining."""
    arms = treatment, control, threshold
    return (
        transfer_metrics(*arms, confidence=confidence),
        transfer_metrics(*arms, pretraining=pretraining, confidence=confidence),
    )


def _common_games(treatment: Mapping[str, Curves], control: Mapping[str, Curves]) -> list[str]:
    for one, other in ((treatment, control), (control, treatment)):
        if alone := [game for game in one if game not in other]:
            raise UserError(
                f'only one of the two arms has curves of "{alone[0]}": expected both to have them.'
                f"{nearest(alone[0], other)}"
            )
    if not treatment:
        raise UserError("there are no learning curves: expected those of at least one game")
    for curves in (treatment, control):
        counts = {game: len(curves[game].scores) for game in curves}
        if len(set(counts.values())) > 1:
            listed = ", ".join(f"{count} in {game}" for game, count in counts.items())
            raise UserError(f"an arm has {listed} runs: expected as many in every game")
    return list(treatment)


def _stack(columns: Iterable[FloatArray]) -> FloatArray:
    return np.stack(list(columns), axis=1)
