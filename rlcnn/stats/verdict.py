"""What a study may say of an arm, in one sentence that cannot mislead."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from envs.errors import UserError
from rlcnn.stats.checks import Scores, check_confidence, check_pair, check_scores
from rlcnn.stats.intervals import Difference, difference_interval
from rlcnn.stats.permutation import permutation_p, smallest_p
from rlcnn.stats.scenarios import simulated_coverage

FEWEST_RUNS = 5
"""Below so many runs of an arm a verdict is never more than suggestive."""

SHORTFALL = 0.02
"""A verdict warns where simulated intervals covered less than they state by more than this."""

LEAST_ABOVE_RANDOM = 0.05
"""The normalised score that a run must end above to have learned, where nothing else is given."""

Finding = Literal[
    "better", "worse", "suggestively better", "suggestively worse", "inconclusive", "no arm learned"
]


@dataclass(frozen=True)
class Verdict:
    """A comparison of two arms.

    Attributes:
        finding: in a word.
        sentence: for a reader, with the figures.
        treatment: the arm it is about.
        control: the arm it is compared with.
        difference: of mean scores, treatment less control; the finding follows from its interval.
        runs: of treatment and control.
        games: how many.
        p_value: of the permutation test, two-sided.
        smallest_p: what any test that exchanges runs could have given at the least.
        smallest_detectable: the true difference that such a study finds four times in five, by the
            spread seen.
        learned: arms of the study that ended clearly above the random agent.
        coverage: kind of scores -> share of simulated studies with as many runs and games in which
            such an interval, of the same nominal confidence, held the true difference.
        notes: one line for each thing that limits the finding.
    """

    finding: Finding
    sentence: str
    treatment: str
    control: str
    difference: Difference
    runs: tuple[int, int]
    games: int
    p_value: float
    smallest_p: float
    smallest_detectable: float
    learned: tuple[str, ...]
    coverage: Mapping[str, float]
    notes: tuple[str, ...]


def judge(
    scores: Scores,
    treatment: str,
    control: str,
    *,
    learned_above: ArrayLike = LEAST_ABOVE_RANDOM,
    comparisons: int = 1,
    confidence: float = 0.95,
    unit: str = "human-normalised score",
    failed: Mapping[str, int] | None = None,
    seed: int = 0,
) -> Verdict:
    """Compares two arms of a study.

    Args:
        scores: every arm of the study, (runs, games), normalised so that acting at random is 0.
        treatment: the arm to judge.
        control: the arm it is judged by.
        learned_above: of each game, or of all, what a run's score must exceed to be clearly above
            the random agent (see :meth:`rlcnn.stats.scores.RandomAgent.limit`).
        comparisons: how many verdicts the study gives; intervals are widened so that all hold at
            once with ``confidence`` (Bonferroni).
        confidence: nominal coverage of all intervals together.
        unit: what a score is called in the sentence.
        failed: arm -> how many of its runs failed and count with a score that is not their own;
            the sentence tells of them.
        seed: of the permutation test's draws.

    Raises:
        UserError: scores or options that are not valid.
    """
    check_confidence(confidence)
    if comparisons < 1:
        raise UserError(f"{comparisons} comparisons give no verdict: expected at least 1")
    arrays = check_scores(scores, least_runs=2)
    first, second = check_pair(scores, treatment, control)
    each = 1 - (1 - confidence) / comparisons
    difference = difference_interval(first, second, each)
    games, runs = first.shape[1], (len(first), len(second))
    learned = learned_arms(scores, learned_above)
    finding = _finding(difference, min(runs), bool(learned))
    least_p = smallest_p(*runs, games)
    detectable = difference.smallest_detectable()
    coverage = simulated_coverage(runs, games, each)
    notes = (
        *_notes(difference, runs, least_p, detectable, learned, tuple(arrays), comparisons, unit),
        *(_shortfall(coverage, runs, games, each) if difference.freedom else ()),
    )
    return Verdict(
        finding=finding,
        sentence=_sentence(
            finding,
            treatment,
            control,
            difference,
            runs,
            games,
            comparisons,
            confidence,
            unit,
            failed or {},
        ),
        treatment=treatment,
        control=control,
        difference=difference,
        runs=runs,
        games=games,
        p_value=permutation_p(first, second, seed),
        smallest_p=least_p,
        smallest_detectable=detectable,
        learned=learned,
        coverage=coverage,
        notes=notes,
    )


def learned_arms(scores: Scores, learned_above: ArrayLike = LEAST_ABOVE_RANDOM) -> tuple[str, ...]:
    """The arms of which, in at least one game, more than half of the runs exceed a limit.

    A single run of many that takes off does not count, nor one that fails against.

    Args:
        scores: arm -> (runs, games).
        learned_above: the limit of each game, or of all.

    Raises:
        UserError: scores that are not valid, or limits of another number of games.
    """
    limits = np.asarray(learned_above, dtype=float)
    arrays = check_scores(scores)
    games = next(iter(arrays.values())).shape[1]
    if limits.ndim > 1 or limits.size not in (1, games) or not np.isfinite(limits).all():
        raise UserError(
            f"limits of what counts as learned have shape {limits.shape}: expected one finite"
            f" number, or one for each of {games} games"
        )
    return tuple(
        arm for arm, array in arrays.items() if ((array > limits).mean(axis=0) > 0.5).any()
    )


def _finding(difference: Difference, runs: int, any_learned: bool) -> Finding:
    if not any_learned:
        return "no arm learned"
    if difference.side == 0:
        return "inconclusive"
    if runs < FEWEST_RUNS:
        return "suggestively better" if difference.side > 0 else "suggestively worse"
    return "better" if difference.side > 0 else "worse"


def _sentence(
    finding: Finding,
    treatment: str,
    control: str,
    difference: Difference,
    runs: tuple[int, int],
    games: int,
    comparisons: int,
    confidence: float,
    unit: str,
    failed: Mapping[str, int],
) -> str:
    percent = f"{100 * confidence:g}%"
    kind = f"{percent} interval" if comparisons == 1 else f"simultaneous {percent} interval"
    reach = (
        f"{kind} {difference.low:+.3g} to {difference.high:+.3g}"
        if difference.freedom
        else "no interval, since no run differs from another of its arm"
    )
    counts = _counted(runs)
    where = f"{games} game{'s' * (games != 1)}, {counts} runs an arm"
    where += " in each" * (games > 1)
    lost = [
        f"{failed[arm]} of {arm}" + f"'s {games * count}" * (games > 1)
        for arm, count in zip((treatment, control), runs, strict=True)
        if failed.get(arm)
    ]
    if lost:
        where += f", of which failed: {' and '.join(lost)}"
    figures = f"difference {difference.point:+.3g} in {unit}, {reach}; {where}"
    return {
        "better": f"{treatment} is better than {control} ({figures}).",
        "worse": f"{treatment} is worse than {control} ({figures}).",
        "suggestively better": f"{treatment} may be better than {control}, but {counts} runs an arm"
        f" only suggest it ({figures}).",
        "suggestively worse": f"{treatment} may be worse than {control}, but {counts} runs an arm"
        f" only suggest it ({figures}).",
        "inconclusive": f"Whether {treatment} is better or worse than {control} is not settled"
        f" ({figures}).",
        "no arm learned": f"No arm learned, so nothing can be said of {treatment} against {control}"
        f" ({figures}).",
    }[finding]


def _notes(
    difference: Difference,
    runs: tuple[int, int],
    least_p: float,
    detectable: float,
    learned: tuple[str, ...],
    arms: tuple[str, ...],
    comparisons: int,
    unit: str,
) -> tuple[str, ...]:
    notes = []
    if min(runs) < FEWEST_RUNS:
        notes.append(
            f"fewer than {FEWEST_RUNS} runs an arm: no test can give a p-value below {least_p:.2g}"
        )
    if runs[0] != runs[1]:
        notes.append(
            f"the arms have different numbers of runs, {runs[0]} and {runs[1]}: the interval is as"
            f" wide as if both had {min(runs)}"
        )
    if math.isfinite(detectable):
        notes.append(
            f"by the spread seen, a true difference of {detectable:.2g} in {unit} would be found"
            " four times in five; a smaller one less often"
        )
    else:
        notes.append("no run differs from another of its arm, so there is no interval")
    if learned and len(learned) < len(arms):
        rest = ", ".join(arm for arm in arms if arm not in learned)
        notes.append(f"not clearly above the random agent: {rest}")
    if comparisons > 1:
        notes.append(
            f"one of {comparisons} verdicts: each interval is widened to"
            f" {100 * difference.confidence:.4g}% so that all hold together"
        )
    return tuple(notes)


def _counted(runs: tuple[int, int]) -> str:
    return f"{runs[0]}" if runs[0] == runs[1] else f"{runs[0]} and {runs[1]}"


def _shortfall(
    coverage: Mapping[str, float], runs: tuple[int, int], games: int, stated: float
) -> tuple[str, ...]:
    """A warning where simulated intervals covered clearly less than they state."""
    hardest = min(coverage, key=lambda scores: coverage[scores])
    if coverage[hardest] >= stated - SHORTFALL:
        return ()
    return (
        f"an interval called {100 * stated:.4g}% may cover less: in simulated studies of"
        f" {games} game{'s' * (games != 1)} with {_counted(runs)} runs an arm it held the true"
        f" difference in {100 * coverage[hardest]:.0f}% to {100 * max(coverage.values()):.0f}%,"
        f" least often with scores of this kind: {hardest}",
    )
