"""The figures of a report."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from rlcnn.report.comparison import OPTIMALITY_GAP, Comparison
from rlcnn.report.content import Levels, Report
from rlcnn.report.curves import MeanCurve, mean_curve
from rlcnn.report.forest import Row, forest, row_figure
from rlcnn.report.style import (
    FAINT,
    INK,
    ArmStyle,
    Drawing,
    arm_styles,
    elided,
    finish,
    interval,
    new_figure,
    number,
    signed,
    styled,
)
from rlcnn.stats import Estimate
from rlcnn.stats.checks import FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Styles = Mapping[str, ArmStyle]

# With more runs of an arm than this, single curves hide the mean.
_MOST_THIN = 12

# A level further from the returns than this many times their range would flatten the curves.
_LEVEL_REACH = 0.75

_LEGEND_CHARACTERS = 46

# File systems allow 255 bytes, of which prefix and ending take some.
_LONGEST_FILE_NAME = 200


def draw(report: Report) -> dict[str, Drawing]:
    """Every figure for which the study has results, by name.

    Names are ``curve-GAME``, ``scores-GAME``, ``aggregate-NAME``, ``difference``, ``improvement``,
    ``profile`` and ``profile-difference``.
    """
    styles = arm_styles(report.arm_names, report.control)
    names = file_names(report.games)
    with styled():
        drawings = [
            *(_curves(report, game, styles, names[game]) for game in report.games),
            *(_scores(report, game, styles, names[game]) for game in report.games),
        ]
        if report.verdicts:
            drawings.append(_differences(report, styles))
        if report.comparison:
            drawings += _comparison(report, report.comparison, styles)
    return {drawing.name: drawing for drawing in drawings if drawing is not None}


def file_names(names: Sequence[str]) -> dict[str, str]:
    """A unique file name for each name, not too long and valid on all file systems."""
    plain = {name: re.sub(r"[^A-Za-z0-9.=]+", "-", name).strip("-.") or "game" for name in names}
    plain = {name: file[:_LONGEST_FILE_NAME] for name, file in plain.items()}
    counts = Counter(file.lower() for file in plain.values())
    return {
        name: f"{file}-{place}" if counts[file.lower()] > 1 else file
        for place, (name, file) in enumerate(plain.items(), start=1)
    }


# -- learning curves -------------------------------------------------------------------------------


def _curves(report: Report, game: str, styles: Styles, file: str) -> Drawing | None:
    from matplotlib.ticker import EngFormatter

    of_game = report.curves.get(game, {})
    measured = [curve for runs in of_game.values() for curve in runs if len(curve.steps)]
    if not measured:
        return None
    end = max(curve.steps[-1] for curve in measured)
    curves = {
        arm: runs for arm, runs in of_game.items() if any(curve.first < math.inf for curve in runs)
    }
    figure, axes = _with_legend(3.3, [*curves, "human", "random"])
    ends = []
    for arm, runs in curves.items():
        colour = styles[arm].colour
        for curve in runs:
            if len(runs) <= _MOST_THIN:
                axes.plot(curve.steps, curve.returns, color=colour, linewidth=0.7, alpha=0.35)
            if curve.failed_as is not None and len(curve.steps):
                axes.plot(curve.steps[-1], curve.returns[-1], "x", color=colour, markersize=7)
        mean = mean_curve(runs, until=end)
        if mean is None:
            label = elided(arm, _LEGEND_CHARACTERS)
            axes.plot([], [], color=colour, linestyle=styles[arm].line, label=label)
        else:
            marker = styles[arm].marker if len(mean.steps) <= 30 else None
            shade = (mean.low, mean.high) if mean.runs > 1 else None
            _line(axes, arm, styles[arm], mean.steps, mean.mean, shade, 0.15, marker)
        ends.append(f"{arm} {_end_of(mean)}")
    returns = np.concatenate([curve.returns for curve in measured])
    for level in _levels(report.levels.get(game, Levels()), returns):
        if level.near:
            axes.axhline(
                level.value, color=FAINT, linestyle=level.line, linewidth=1, label=str(level)
            )
        else:
            axes.plot([], [], " ", label=f"{level}, beyond this figure")
    axes.set(
        title=elided(game, _LEGEND_CHARACTERS),
        xlabel="agent steps",
        ylabel="mean return",
        xlim=(0, end),
    )
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.margins(y=0.08)
    _add_legend(figure, axes)
    alt = f"Learning curves in {game}: {report.curves_of}, at the end: {'; '.join(ends)}."
    return finish(figure, f"curve-{file}", f"Learning curves, {game}", alt)


def _line(
    axes: Axes,
    arm: str,
    style: ArmStyle,
    places: ArrayLike,
    middle: ArrayLike,
    ends: tuple[ArrayLike, ArrayLike] | None = None,
    alpha: float = 0.12,
    marker: str | None = None,
) -> None:
    """A line for an arm, with a shade between the ends of its intervals."""
    label = elided(arm, _LEGEND_CHARACTERS)
    look: Any = {"color": style.colour, "linestyle": style.line, "linewidth": 2}
    axes.plot(places, middle, marker=marker, markersize=4, label=label, **look)
    if ends is not None:
        axes.fill_between(places, *ends, color=style.colour, alpha=alpha, linewidth=0)


def _end_of(mean: MeanCurve | None) -> str:
    if mean is None:
        return "has no run that has ended"
    end = number(mean.mean[-1])
    if mean.runs < 2:
        return end
    if mean.low[-1] == mean.high[-1]:
        return f"{end} ({mean.runs} runs, all alike)"
    return f"{end} (95% interval {interval(mean.low[-1], mean.high[-1])}, {mean.runs} runs)"


class _Level(NamedTuple):
    name: str
    value: float
    line: str
    near: bool

    def __str__(self) -> str:
        return f"{self.name} {number(self.value)}"


def _levels(levels: Levels, returns: Iterable[float]) -> list[_Level]:
    """The known levels, and whether each is near enough to ``returns`` to be drawn."""
    values = [*returns, *([] if levels.random is None else [levels.random])]
    low, high = min(values), max(values)
    reach = _LEVEL_REACH * (high - low)
    return [
        _Level(name, value, line, low - reach <= value <= high + reach)
        for name, value, line in (("human", levels.human, "--"), ("random", levels.random, ":"))
        if value is not None
    ]


def _with_legend(height: float, names: Sequence[str]) -> tuple[Figure, Axes]:
    """A figure with room for a legend below, so that the plot keeps its height."""
    figure = new_figure(height + 0.19 * math.ceil(len(names) / _legend_columns(names)))
    return figure, figure.subplots()


def _add_legend(figure: Figure, axes: Axes) -> None:
    _, names = axes.get_legend_handles_labels()
    figure.legend(
        loc="outside lower left", ncols=_legend_columns(names), handlelength=1.8, columnspacing=1.2
    )


def _legend_columns(names: Sequence[str]) -> int:
    return 2 if max(map(len, names)) <= 22 else 1


# -- scores ----------------------------------------------------------------------------------------


def _scores(report: Report, game: str, styles: Styles, file: str) -> Drawing | None:
    levels = report.levels.get(game, Levels())
    rows, texts, of_arms = [], [], []
    for arm in report.arm_names:
        runs = report.runs_of(game, arm)
        scores = [run.score for run in runs if run.score is not None]
        lost = sum(run.state == "failed" for run in runs)
        # A failed run counts with the random agent's return.
        failed = [] if levels.random is None else [levels.random] * lost
        counted = scores + failed
        shown = f"mean {number(float(np.mean(counted)))}" if counted else "no score"
        states = {"failed": lost, "not done": sum(r.state in ("begun", "waiting") for r in runs)}
        shown += "".join(f", {count} {state}" for state, count in states.items() if count)
        rows.append(Row(arm, shown))
        texts.append(f"{arm}: {shown} ({', '.join(map(number, scores)) or 'none'})")
        of_arms.append((scores, failed))
    known = [score for scores, _ in of_arms for score in scores]
    if not known:
        return None
    figure, axes = row_figure(rows)
    lines = []
    for level in _levels(levels, known):
        texts.append(str(level))
        if level.near:
            axes.axvline(level.value, color=FAINT, linestyle=level.line, linewidth=1, zorder=0.5)
            lines.append(f"{'dashed' if level.line == '--' else 'dotted'}: {level.name}")
    for place, (row, (scores, failed)) in enumerate(zip(rows, of_arms, strict=True)):
        colour = styles[row.arm].colour
        axes.plot(scores, [place] * len(scores), "o", color=colour, alpha=0.55, markersize=6)
        if scores or failed:
            mean = np.mean(scores + failed)
            axes.plot(mean, place, "|", color=INK, markersize=15, markeredgewidth=2)
        axes.plot(failed, [place] * len(failed), "x", color=colour, markersize=7)
    axes.margins(x=0.06)
    axes.set_title(f"{elided(game, _LEGEND_CHARACTERS)}: every run's score")
    axes.set_xlabel("mean return of the last agent" + (f" ({', '.join(lines)})" if lines else ""))
    alt = f"Final scores of every run in {game}: {'; '.join(texts)}."
    return finish(figure, f"scores-{file}", f"Scores, {game}", alt)


# -- arm against arm -------------------------------------------------------------------------------


def _differences(report: Report, styles: Styles) -> Drawing:
    rows = []
    for verdict in report.verdicts:
        each = verdict.difference
        reach = interval(each.low, each.high, signed) if each.freedom else "no interval"
        shown = f"{signed(each.point)} {reach}"
        rows.append(Row(verdict.treatment, shown, each.point, each.low, each.high))
    return forest(
        rows,
        styles,
        name="difference",
        title=f"Difference to {elided(report.control, 28)}",
        label=f"{report.unit}; right of the line: better",
        what=f"Difference of the mean {report.unit} to {report.control}, with the interval of the"
        " verdict",
        marked=0.0,
    )


def _comparison(report: Report, compared: Comparison, styles: Styles) -> Iterator[Drawing]:
    """Aggregates, probabilities of improvement, and performance profiles."""
    for name, estimates in compared.aggregates.items():
        yield forest(
            _estimated(estimates),
            styles,
            name=f"aggregate-{name.replace(' ', '-')}",
            title=name[0].upper() + name[1:],
            label=f"{report.unit}, {'lower' if name == OPTIMALITY_GAP else 'higher'} is better",
            what=f"{name} of the {report.unit}s with 95% bootstrap intervals",
        )
    if compared.improvement:
        yield forest(
            _estimated(compared.improvement),
            styles,
            name="improvement",
            title="Probability of improvement",
            label=f"that a run beats one of {elided(report.control, 26)}",
            what=f"How probably a run beats one of {report.control}, with 95% bootstrap intervals",
            marked=0.5,
        )
    thresholds = compared.thresholds
    what = f"Share of runs whose {report.unit} is above each value"
    figure, axes = _profiles(thresholds, compared.profiles, styles)
    axes.set(
        title="Performance profile",
        xlabel=report.unit,
        ylabel="share of runs above it",
        ylim=(-0.03, 1.03),
    )
    texts = [
        f"{arm}: median of the runs {number(float(np.median(compared.scores[arm])))}"
        for arm in compared.profiles
    ]
    yield finish(figure, "profile", "Performance profile", f"{what}. {'; '.join(texts)}.")
    if not compared.profile_differences:
        return
    figure, axes = _profiles(thresholds, compared.profile_differences, styles)
    axes.axhline(0.0, color=FAINT, linewidth=1.2)
    axes.set(
        title=f"Profile minus that of {elided(report.control, 26)}",
        xlabel=report.unit,
        ylabel="difference in share above it",
    )
    texts = []
    for arm, share in compared.profile_differences.items():
        place = int(np.abs(share.point).argmax())
        difference, value = signed(float(share.point[place])), number(float(thresholds[place]))
        texts.append(f"{arm}: at most {difference}, at {value}")
    alt = f"{what}, minus that of {report.control}. {'; '.join(texts)}."
    yield finish(figure, "profile-difference", "Difference of performance profiles", alt)


def _estimated(estimates: Mapping[str, Estimate]) -> list[Row]:
    ends = {arm: (float(e.point), float(e.low), float(e.high)) for arm, e in estimates.items()}
    return [
        Row(arm, f"{number(point)} {interval(low, high)}", point, low, high)
        for arm, (point, low, high) in ends.items()
    ]


def _profiles(
    thresholds: FloatArray, shares: Mapping[str, Estimate], styles: Styles
) -> tuple[Figure, Axes]:
    figure, axes = _with_legend(3.0, list(shares))
    for arm, share in shares.items():
        _line(axes, arm, styles[arm], thresholds, share.point, (share.low, share.high))
    axes.set_xlim(thresholds[0], thresholds[-1])
    _add_legend(figure, axes)
    return figure, axes
