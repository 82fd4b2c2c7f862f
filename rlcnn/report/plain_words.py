"""A study's result in plain words: points, runs against runs, what to conclude, and the cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from rlcnn.report.content import Report
from rlcnn.report.style import counted, duration, number, plural, signed
from rlcnn.stats import Verdict
from rlcnn.stats.verdict import FEWEST_RUNS, quoted

_CLEAR = ("better", "worse")
_HUMAN, _WAY = "human-normalised score", "of the way from random play to a person"


@dataclass(frozen=True)
class Points:
    """A row of the table of points.

    Attributes:
        arm: an arm, "random play" or "a person".
        scores: mean points in each game, and how far that is from random play to a person.
        time: wall time of a run, for arms.
    """

    arm: str
    scores: tuple[str, ...]
    time: str = ""


@dataclass(frozen=True)
class PlainWords:
    """What the page says first.

    Attributes:
        lead: the clearest verdict; ``others`` has a sentence for each other one.
        odd: a sentence for each arm with runs that failed or are dead.
        points: of each arm, random play and a person.
        pairs: how many runs of each arm beat how many of the control.
        conclude: what follows from the study; ``not_conclude`` does not follow.
        cost: what it took.
    """

    lead: str
    others: tuple[str, ...]
    odd: tuple[str, ...]
    points: tuple[Points, ...]
    pairs: tuple[str, ...]
    conclude: tuple[str, ...]
    not_conclude: tuple[str, ...]
    cost: tuple[str, ...]


def clearest_first(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Verdicts by how settled they are, then by how far their intervals are from no difference."""

    def unsettled(verdict: Verdict) -> tuple[int, float]:
        difference = verdict.difference
        rank = ("better", "worse", "suggestively better", "suggestively worse", "inconclusive")
        place = rank.index(verdict.finding) // 2 if verdict.finding in rank else len(rank)
        reach = (difference.high - difference.low) / 2
        return place, -abs(difference.point) / reach if reach > 0 else -math.inf

    return sorted(verdicts, key=unsettled)


def plain_words(report: Report) -> PlainWords | None:
    """What a finished study says to everyone; None without verdicts."""
    if not report.verdicts:
        return None
    verdicts = clearest_first(report.verdicts)
    sentences = [_sentence(report, verdict) for verdict in verdicts]
    if any(verdict.finding == "no arm learned" for verdict in verdicts):
        sentences = ["No arm learned to play, so this study cannot compare them."]
    return PlainWords(
        lead=sentences[0],
        others=tuple(sentences[1:]),
        odd=tuple(_odd_runs(report)),
        points=tuple(_points(report)),
        pairs=tuple(_pairs(report, verdict) for verdict in verdicts),
        conclude=tuple(_conclusions(report, verdicts)),
        not_conclude=tuple(_no_conclusions(report, verdicts)),
        cost=tuple(_cost(report)),
    )


def _counted_scores(report: Report, game: str, arm: str) -> list[float]:
    """The scores of an arm's runs; a failed run counts as random play."""
    failed_as = report.level_of(game).random
    scores = [
        run.score if run.score is not None else failed_as for run in report.runs_of(game, arm)
    ]
    return [score for score in scores if score is not None]


def _mean(report: Report, game: str, arm: str) -> float:
    scores = _counted_scores(report, game, arm)
    return float(np.mean(scores)) if scores else math.nan


def _sentence(report: Report, verdict: Verdict) -> str:
    """A verdict with the means that it compares."""
    arm, control = quoted(verdict.treatment), quoted(verdict.control)
    means = _means(report, verdict)
    match verdict.finding:
        case "better" | "worse" as finding:
            return f"{arm} is {finding} than {control}{f': {means}' if means else ''}."
        case "suggestively better" | "suggestively worse":
            which = verdict.finding.split()[1]
            return (
                f"{arm} may be {which} than {control}{f' ({means})' if means else ''}, but"
                f" {plural(min(verdict.runs), 'run')} of each are too few to be sure."
            )
        case _:
            return (
                f"It is not settled whether {arm} is better or worse than {control}:"
                f" {f'{means}, which' if means else 'the difference'} can be chance alone."
            )


def _means(report: Report, verdict: Verdict) -> str:
    """The means of an arm and of the control: points of one game, or shares of a person's."""
    arms = verdict.treatment, verdict.control
    if len(report.games) == 1:
        here, there = (number(_mean(report, report.games[0], arm)) for arm in arms)
        return f"{here} points against {there} on average"
    if report.unit != _HUMAN:
        return ""
    shares = []
    for arm in arms:
        levels = {game: report.level_of(game) for game in report.games}
        shares.append(
            np.mean(
                [
                    (_mean(report, game, arm) - level.random) / (level.human - level.random)
                    for game, level in levels.items()
                    if level.random is not None and level.human is not None
                ]
            )
        )
    here, there = (_share(float(share)) for share in shares)
    return f"{here} against {there} {_WAY}, on average"


def _share(share: float) -> str:
    """A share in whole per cent."""
    return signed(share, lambda size: f"{size:.0%}") if share < 0 else f"{share:.0%}"


def _odd_runs(report: Report) -> Iterator[str]:
    """A sentence for each arm and game with runs that failed, and with dead ones."""
    for kind, said in (
        ("failed", "failed and {} as random play"),
        ("dead", "scored nothing: no game of {} last agent had more points than random play has"),
    ):
        runs = [run for run in report.runs if report.oddity(run) == kind]
        runs.sort(key=lambda run: (report.games.index(run.game), report.arm_names.index(run.arm)))
        for (game, arm), group in groupby(runs, key=lambda run: (run.game, run.arm)):
            seeds = [run.seed for run in group]
            one = len(seeds) == 1
            fill = ("counts" if one else "count") if kind == "failed" else "its" if one else "their"
            where = f" in {game}" if len(report.games) > 1 else ""
            yield (
                f"{plural(len(seeds), 'run')} of {quoted(arm)}{where} {said.format(fill)} (seed"
                f"{'' if one else 's'} {', '.join(map(str, seeds))})."
            )


def _points(report: Report) -> Iterator[Points]:
    def score(game: str, points: float | None) -> str:
        if points is None:
            return ""
        levels = report.level_of(game)
        if levels.random is None or levels.human is None or levels.human <= levels.random:
            return number(points)
        share = (points - levels.random) / (levels.human - levels.random)
        return f"{number(points)} ({_share(share)})"

    for arm in report.arm_names:
        seconds = [r.wall_seconds for r in report.runs if r.arm == arm and r.wall_seconds]
        yield Points(
            arm,
            tuple(score(game, _mean(report, game, arm)) for game in report.games),
            duration(float(np.mean(seconds))) if seconds else "",
        )
    levels = [report.level_of(game) for game in report.games]
    for name, values in (
        ("random play", [level.random for level in levels]),
        ("a person", [level.human for level in levels]),
    ):
        if any(value is not None for value in values):
            shown = (score(game, v) for game, v in zip(report.games, values, strict=True))
            yield Points(name, tuple(shown))


def _pairs(report: Report, verdict: Verdict) -> str:
    """How many runs of an arm beat how many of the control."""
    arm, control, parts = quoted(verdict.treatment), quoted(verdict.control), []
    for game in report.games:
        ours, theirs = (
            np.array(_counted_scores(report, game, each))
            for each in (verdict.treatment, verdict.control)
        )
        won, lost = (ours[:, None] > theirs).sum(), (ours[:, None] < theirs).sum()
        if not (ours.size and theirs.size):
            continue
        pairs, where = ours.size * theirs.size, f" in {game}" if len(report.games) > 1 else ""
        if won == pairs:
            parts.append(f"every run of {arm} beat every run of {control}{where}")
        elif lost == pairs:
            parts.append(f"no run of {arm} beat any run of {control}{where}")
        else:
            middle = (ours > np.median(theirs)).sum()
            parts.append(
                f"{middle} of {plural(ours.size, 'run')} of {arm} beat the middle run of"
                f" {control}{where}; of all {pairs} pairs of runs it won {won} and lost {lost}"
            )
    text = "; ".join(parts) or "there are no scores to compare"
    return f"{text[0].upper()}{text[1:]}."


def _amount(report: Report, verdict: Verdict, *values: float) -> str:
    """Sizes of normalised differences: in points of one game, or as shares of a person's."""
    sizes = [abs(value) for value in values]
    written: Callable[[float], str] = number
    unit = f" in {report.unit}"
    if len(report.games) == 1 and verdict.difference.point:
        game = report.games[0]
        gap = _mean(report, game, verdict.treatment) - _mean(report, game, verdict.control)
        sizes = [abs(size * gap / verdict.difference.point) for size in sizes]
        unit = " points"
    elif report.unit == _HUMAN:
        written, unit = _share, f" {_WAY}"
    return " to ".join(map(written, sizes)) + unit


def _conclusions(report: Report, verdicts: Sequence[Verdict]) -> Iterator[str]:
    where = " and ".join(filter(None, [", ".join(report.games[:-1]), report.games[-1]]))
    for verdict in verdicts:
        if verdict.finding not in _CLEAR:
            continue
        arm, control = quoted(verdict.treatment), quoted(verdict.control)
        ends = sorted((verdict.difference.low, verdict.difference.high), key=abs)
        more = "more" if verdict.finding == "better" else "less"
        yield (
            f"In {where}, with these options, agents of {arm} score {more} than those of {control}"
            f" on average: by {_amount(report, verdict, *ends)}, as far as these runs can tell."
        )
    if not any(verdict.finding in _CLEAR for verdict in verdicts):
        yield "Nothing certain: the runs of the arms do not differ by more than chance can make."
    learned = {arm for verdict in verdicts for arm in verdict.learned}
    if missing := [arm for arm in report.arm_names if arm not in learned]:
        verb = "is" if len(missing) == 1 else "are"
        yield f"{', '.join(map(quoted, missing))} {verb} not clearly above random play."


def _no_conclusions(report: Report, verdicts: Sequence[Verdict]) -> Iterator[str]:
    open_ones = [v for v in verdicts if v.finding == "inconclusive"]
    for verdict in open_ones:
        if math.isfinite(verdict.smallest_detectable):
            least = _amount(report, verdict, verdict.smallest_detectable)
            arms = f"{quoted(verdict.treatment)} and {quoted(verdict.control)}"
            yield (
                f"That {arms} are equal: a study of this size often misses a true difference below"
                f" {least}."
            )
    if min(min(verdict.runs) for verdict in verdicts) < FEWEST_RUNS:
        yield f"Anything for sure: with fewer than {FEWEST_RUNS} runs an arm, chance can do much."
    yield "That the same holds in other games, with more training or with other options."


def _cost(report: Report) -> Iterator[str]:
    seconds = [run.wall_seconds for run in report.runs if run.wall_seconds is not None]
    steps = sum(run.steps for run in report.runs)
    text = f"{plural(len(report.runs), 'run')} and {counted(steps)} agent steps"
    if seconds:
        text += f", {duration(sum(seconds))} of the runs' wall time together"
    yield f"{text}."
    for arm in report.arms:
        if arm.origin:
            known = arm.cost or "not known"
            name = quoted(arm.name)
            yield f"The weights of {name} cost more before the study: {known.rstrip('.')}."
