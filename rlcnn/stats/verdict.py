"""Verdicts: decides the finding of a study about an arm, and states it in one sentence."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
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
        difference: of mean scores, treatment minus control; its interval decides the finding.
        runs: of treatment and control.
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
    dead: Mapping[str, int] | None = None,
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
        dead: arm -> number of its runs that scored nothing; the sentence names them, too.
        seed: of the permutation test's draws.

    Raises:
        UserError: invalid scores or options.
    """
    check_confidence(confidence)
    if comparisons < 1:
        raise UserError(f"{comparisons} comparisons give no verdict: expected at least 1")
    arms = check_scores(scores, least_runs=2)
    first, second = check_pair(scores, treatment, control)
    difference = difference_interval(first, second, 1 - (1 - confidence) / comparisons)
    games, runs = first.shape[1], (len(first), len(second))
    learned = learned_arms(scores, learned_above)
    finding = _finding(difference, min(runs), bool(learned))
    verdict = Verdict(
        finding=finding,
        sentence="",
        treatment=treatment,
        control=control,
        difference=difference,
        runs=runs,
        games=games,
        p_value=permutation_p(first, second, seed),
        smallest_p=smallest_p(*runs, games),
        smallest_detectable=difference.smallest_detectable(),
        learned=learned,
        coverage=simulated_coverage(runs, games, difference.confidence),
        notes=(),
    )
    kind = f"{'simultaneous ' * (comparisons > 1)}{100 * confidence:g}% interval"
    sentence = _SENTENCES[finding].format(
        treatment=quoted(treatment),
        control=quoted(control),
        runs=_counted(runs),
        figures=_figures(verdict, kind, unit, failed or {}, dead or {}),
    )
    notes = _notes(verdict, [arm for arm in arms if arm not in learned], comparisons, unit)
    return replace(verdict, sentence=sentence, notes=tuple(notes))


def quoted(arm: str) -> str:
    """An arm's name in a sentence, in quotes if it has a comma."""
    return f'"{arm}"' if "," in arm else arm


def learned_arms(scores: Scores, learned_above: ArrayLike = LEAST_ABOVE_RANDOM) -> tuple[str, ...]:
    """The arms with a game in which more than half of the runs exceed a limit.

    So a single lucky run of many does not make an arm learn, and a single failed one does not
    prevent it. ``learned_above`` holds the limit, for each game or for all.

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
    verdict: Verdict, kind: str, unit: str, failed: Mapping[str, int], dead: Mapping[str, int]
) -> str:
    difference, games, runs = verdict.difference, verdict.games, verdict.runs
    reach = "no interval, since all runs of each arm are equal"
    if difference.freedom:
        reach = f"{kind} {difference.low:+.3g} to {difference.high:+.3g}"
    where = f"{_design(verdict)}{' in each' * (games > 1)}"
    for what, counts in (("failed", failed), ("scored nothing", dead)):
        lost = [
            f"{counts[arm]} of {quoted(arm)}" + f"'s {games * total}" * (games > 1)
            for arm, total in zip((verdict.treatment, verdict.control), runs, strict=True)
            if counts.get(arm)
        ]
        if lost:
            where += f", of which {what}: {' and '.join(lost)}"
    return f"difference {difference.point:+.3g} in {unit}, {reach}; {where}"


def _notes(
    verdict: Verdict, not_learned: Sequence[str], comparisons: int, unit: str
) -> Iterator[str]:
    runs, stated = verdict.runs, f"{100 * verdict.difference.confidence:.4g}%"
    if min(runs) < FEWEST_RUNS:
        yield (
            f"fewer than {FEWEST_RUNS} runs per arm: no test can give a p-value below"
            f" {verdict.smallest_p:.2g}"
        )
    if runs[0] != runs[1]:
        yield (
            f"the arms have different numbers of runs, {_counted(runs)}: the interval is as"
            f" wide as if both had {min(runs)}"
        )
    if math.isfinite(verdict.smallest_detectable):
        yield (
            f"with this spread, a true difference of {verdict.smallest_detectable:.2g} in {unit}"
            " would be found four times in five; a smaller one less often"
        )
    else:
        yield "all runs of each arm are equal, so there is no interval"
    if verdict.learned and not_learned:
        yield f"not clearly above the random agent: {', '.join(map(quoted, not_learned))}"
    if comparisons > 1:
        yield (
            f"one of {comparisons} verdicts: each interval is widened to {stated} so that all of"
            " them hold together"
        )
    hardest = min(verdict.coverage, key=lambda scores: verdict.coverage[scores])
    least, most = verdict.coverage[hardest], max(verdict.coverage.values())
    if verdict.difference.freedom and least < verdict.difference.confidence - SHORTFALL:
        yield (
            f"a {stated} interval may cover less: in simulated studies of"
            f" {_design(verdict, ' with ')} it contained the true difference in"
            f" {100 * least:.0f}% to {100 * most:.0f}%, least often with scores of this kind:"
            f" {hardest}"
        )


def _design(verdict: Verdict, joined: str = ", ") -> str:
    games = f"{verdict.games} game{'s' * (verdict.games != 1)}"
    return f"{games}{joined}{_counted(verdict.runs)} runs per arm"


def _counted(runs: tuple[int, int]) -> str:
    return f"{runs[0]}" if runs[0] == runs[1] else f"{runs[0]} and {runs[1]}"
