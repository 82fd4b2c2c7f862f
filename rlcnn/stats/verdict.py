"""Verdicts: decides the finding of a study about an arm, and states it in one sentence."""

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
"""With fewer runs of an arm, a verdict is at most suggestive."""

SHORTFALL = 0.02
"""A verdict warns if simulated intervals cover less than their confidence by more than this."""

LEAST_ABOVE_RANDOM = 0.05
"""Default of the normalised score that a run must exceed to count as learned."""

Finding = Literal[
    "better", "worse", "suggestively better", "suggestively worse", "inconclusive", "no arm learned"
]


_SENTENCES: Mapping[Finding, str] = {
    "better": "{treatment} is better than {control} ({figures}).",
    "worse": "{treatment} is worse than {control} ({figures}).",
    "suggestively better": "{treatment} may be better than {control}, but {runs} runs per arm only"
    " suggest it ({figures}).",
    "suggestively worse": "{treatment} may be worse than {control}, but {runs} runs per arm only"
    " suggest it ({figures}).",
    "inconclusive": "Whether {treatment} is better or worse than {control} is not settled"
    " ({figures}).",
    "no arm learned": "No arm learned, so nothing can be said of {treatment} against {control}"
    " ({figures}).",
}


@dataclass(frozen=True)
class Verdict:
    """A comparison of two arms.

    Attributes:
        finding: in a word.
        sentence: the finding with its figures, for people.
        treatment: the arm that is compared.
        control: the arm that it is compared with.
        difference: of mean scores, treatment minus control; its interval decides the finding.
        runs: of treatment and control.
        games: number of games.
        p_value: of the permutation test, two-sided.
        smallest_p: the smallest p-value that any test that exchanges runs can give.
        smallest_detectable: the true difference that such a study finds four times in five, given
            the observed spread.
        learned: arms of the study that ended clearly above the random agent.
        coverage: kind of scores -> share of simulated studies with as many runs and games whose
            interval, of the same nominal confidence, contains the true difference.
        notes: limits of the finding, one line each.
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
        treatment: the arm to compare.
        control: the arm to compare it with.
        learned_above: the score, for each game or for all, that a run must exceed to be clearly
            above the random agent (see :meth:`rlcnn.stats.scores.RandomAgent.limit`).
        comparisons: number of verdicts of the study; intervals are widened so that all of them
            together have ``confidence`` (Bonferroni).
        confidence: nominal coverage of all intervals together.
        unit: name of a score in the sentence.
        failed: arm -> number of its runs that failed and count with a substitute score; the
            sentence names them.
        seed: of the permutation test's draws.

    Raises:
        UserError: invalid scores or options.
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
    failures = {arm: (failed or {}).get(arm, 0) for arm in (treatment, control)}
    figures = _figures(difference, runs, games, comparisons, confidence, unit, failures)
    return Verdict(
        finding=finding,
        sentence=_SENTENCES[finding].format(
            treatment=treatment, control=control, runs=_counted(runs), figures=figures
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
    """The arms with a game in which more than half of the runs exceed a limit.

    So a single lucky run of many does not make an arm learn, and a single failed one does not
    prevent it.

    Args:
        scores: arm -> (runs, games).
        learned_above: the limit, for each game or for all.

    Raises:
        UserError: invalid scores, or limits for another number of games.
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


def _figures(
    difference: Difference,
    runs: tuple[int, int],
    games: int,
    comparisons: int,
    confidence: float,
    unit: str,
    failures: Mapping[str, int],
) -> str:
    kind = f"{'simultaneous ' * (comparisons > 1)}{100 * confidence:g}% interval"
    reach = (
        f"{kind} {difference.low:+.3g} to {difference.high:+.3g}"
        if difference.freedom
        else "no interval, since all runs of each arm are equal"
    )
    where = f"{games} game{'s' * (games != 1)}, {_counted(runs)} runs per arm"
    where += " in each" * (games > 1)
    lost = [
        f"{count} of {arm}" + f"'s {games * total}" * (games > 1)
        for (arm, count), total in zip(failures.items(), runs, strict=True)
        if count
    ]
    if lost:
        where += f", of which failed: {' and '.join(lost)}"
    return f"difference {difference.point:+.3g} in {unit}, {reach}; {where}"


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
            f"fewer than {FEWEST_RUNS} runs per arm: no test can give a p-value below {least_p:.2g}"
        )
    if runs[0] != runs[1]:
        notes.append(
            f"the arms have different numbers of runs, {runs[0]} and {runs[1]}: the interval is as"
            f" wide as if both had {min(runs)}"
        )
    if math.isfinite(detectable):
        notes.append(
            f"with this spread, a true difference of {detectable:.2g} in {unit} would be found four"
            " times in five; a smaller one less often"
        )
    else:
        notes.append("all runs of each arm are equal, so there is no interval")
    if learned and len(learned) < len(arms):
        rest = ", ".join(arm for arm in arms if arm not in learned)
        notes.append(f"not clearly above the random agent: {rest}")
    if comparisons > 1:
        notes.append(
            f"one of {comparisons} verdicts: each interval is widened to"
            f" {100 * difference.confidence:.4g}% so that all of them hold together"
        )
    return tuple(notes)


def _counted(runs: tuple[int, int]) -> str:
    return f"{runs[0]}" if runs[0] == runs[1] else f"{runs[0]} and {runs[1]}"


def _shortfall(
    coverage: Mapping[str, float], runs: tuple[int, int], games: int, stated: float
) -> tuple[str, ...]:
    """A warning if simulated intervals cover clearly less than their confidence."""
    hardest = min(coverage, key=lambda scores: coverage[scores])
    if coverage[hardest] >= stated - SHORTFALL:
        return ()
    return (
        f"a {100 * stated:.4g}% interval may cover less: in simulated studies of"
        f" {games} game{'s' * (games != 1)} with {_counted(runs)} runs per arm it contained the"
        f" true difference in {100 * coverage[hardest]:.0f}% to"
        f" {100 * max(coverage.values()):.0f}%, least often with scores of this kind: {hardest}",
    )
