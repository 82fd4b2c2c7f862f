"""The figures of a report."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from rlcnn.report.comparison import OPTIMALITY_GAP
from rlcnn.report.content import Levels, Report, RunResult
from rlcnn.report.curves import MeanCurve, RunCurve, mean_curve
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
            _difference(report, styles),
            *_aggregates(report, styles),
            _improvement(report, styles),
            *_profiles(report, styles),
        ]
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


def _curves(report: Report, game: str, styles: Mapping[str, ArmStyle], file: str) -> Drawing | None:
    from matplotlib.ticker import EngFormatter

    of_game = report.curves.get(game, {})
    if not any(len(curve.steps) for runs in of_game.values() for curve in runs):
        return None
    curves = {arm: runs for arm, runs in of_game.items() if _has_values(runs)}
    figure, axes = _with_legend(3.3, [*curves, "human", "random"])
    ends, reached = [], []
    end = max(curve.steps[-1] for runs in curves.values() for curve in runs if len(curve.steps))
    for arm, runs in curves.items():
        _thin_lines(axes, runs, styles[arm])
        reached += [value for curve in runs for value in curve.returns]
        mean = mean_curve(runs, until=end)
        _mean_line(axes, mean, styles[arm], elided(arm, _LEGEND_CHARACTERS))
        ends.append(f"{arm} {_end_of(mean)}")
    for level in _levels(report.levels.get(game, Levels()), reached):
        if level.near:
            axes.axhline(
                level.value, color=FAINT, linestyle=level.line, linewidth=1, label=str(level)
            )
        else:
            axes.plot([], [], " ", label=f"{level}, beyond this figure")
    axes.set_title(elided(game, _LEGEND_CHARACTERS))
    axes.set_xlabel("agent steps")
    axes.set_ylabel("mean return")
    axes.set_xlim(0, end)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.margins(y=0.08)
    _add_legend(figure, axes)
    alt = f"Learning curves in {game}: {report.curves_of}, at the end: {'; '.join(ends)}."
    return finish(figure, f"curve-{file}", f"Learning curves, {game}", alt)


def _has_values(runs: Sequence[RunCurve]) -> bool:
    return any(curve.first < math.inf for curve in runs)


def _thin_lines(axes: Axes, runs: Sequence[RunCurve], style: ArmStyle) -> None:
    for curve in runs:
        if len(runs) <= _MOST_THIN:
            axes.plot(curve.steps, curve.returns, color=style.colour, linewidth=0.7, alpha=0.35)
        if curve.failed_as is not None and len(curve.steps):
            axes.plot(curve.steps[-1], curve.returns[-1], "x", color=style.colour, markersize=7)


def _mean_line(axes: Axes, mean: MeanCurve | None, style: ArmStyle, label: str) -> None:
    if mean is None:
        axes.plot([], [], color=style.colour, linestyle=style.line, label=label)
        return
    few = len(mean.steps) <= 30
    axes.plot(
        mean.steps,
        mean.mean,
        color=style.colour,
        linestyle=style.line,
        linewidth=2,
        marker=style.marker if few else None,
        markersize=4,
        label=label,
    )
    if mean.runs > 1:
        axes.fill_between(
            mean.steps, mean.low, mean.high, color=style.colour, alpha=0.15, linewidth=0
        )


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


def _levels(levels: Levels, returns: Sequence[float]) -> list[_Level]:
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
        loc="outside lower left",
        ncols=_legend_columns(names),
        handlelength=1.8,
        columnspacing=1.2,
    )


def _legend_columns(names: Sequence[str]) -> int:
    return 2 if max(map(len, names)) <= 22 else 1


# -- scores ----------------------------------------------------------------------------------------


def _scores(report: Report, game: str, styles: Mapping[str, ArmStyle], file: str) -> Drawing | None:
    rows, texts, known = [], [], []
    levels = report.levels.get(game, Levels())
    for arm in report.arm_names:
        runs = report.runs_of(game, arm)
        scores, counted = _known_scores(runs), _counted_scores(runs, levels.random)
        state = _states(runs)
        shown = f"mean {number(float(np.mean(counted)))}{state}" if counted else f"no score{state}"
        rows.append(Row(arm, shown))
        texts.append(f"{arm}: {shown} ({', '.join(map(number, scores)) or 'none'})")
        known += scores
    if not known:
        return None
    figure, axes = row_figure(rows)
    lines = []
    for level in _levels(levels, known):
        texts.append(str(level))
        if level.near:
            axes.axvline(level.value, color=FAINT, linestyle=level.line, linewidth=1, zorder=0.5)
            lines.append(f"{'dashed' if level.line == '--' else 'dotted'}: {level.name}")
    for place, arm in enumerate(report.arm_names):
        _dots(axes, report.runs_of(game, arm), place, styles[arm].colour, levels.random)
    axes.margins(x=0.06)
    axes.set_title(f"{elided(game, _LEGEND_CHARACTERS)}: every run's score")
    axes.set_xlabel("mean return of the last agent" + (f" ({', '.join(lines)})" if lines else ""))
    alt = f"Final scores of every run in {game}: {'; '.join(texts)}."
    return finish(figure, f"scores-{file}", f"Scores, {game}", alt)


def _dots(
    axes: Axes, runs: Sequence[RunResult], place: int, colour: str, random: float | None
) -> None:
    scores, counted = _known_scores(runs), _counted_scores(runs, random)
    axes.plot(scores, [place] * len(scores), "o", color=colour, alpha=0.55, markersize=6)
    if counted:
        axes.plot(np.mean(counted), place, "|", color=INK, markersize=15, markeredgewidth=2)
    failed = counted[len(scores) :]
    axes.plot(failed, [place] * len(failed), "x", color=colour, markersize=7)


def _known_scores(runs: Sequence[RunResult]) -> list[float]:
    return [run.score for run in runs if run.score is not None]


def _counted_scores(runs: Sequence[RunResult], random: float | None) -> list[float]:
    """The known scores, then one of the random agent for each failed run."""
    failed = sum(run.state == "failed" for run in runs)
    return _known_scores(runs) + ([] if random is None else [random] * failed)


def _states(runs: Sequence[RunResult]) -> str:
    counts = Counter(run.state for run in runs)
    open_runs = counts["begun"] + counts["waiting"]
    parts = [f"{counts['failed']} failed"] * bool(counts["failed"])
    parts += [f"{open_runs} not done"] * bool(open_runs)
    return f", {', '.join(parts)}" if parts else ""


# -- arm against arm -------------------------------------------------------------------------------


def _aggregates(report: Report, styles: Mapping[str, ArmStyle]) -> list[Drawing]:
    if report.comparison is None:
        return []
    return [
        forest(
            _estimated(estimates),
            styles,
            name=f"aggregate-{name.replace(' ', '-')}",
            title=name[0].upper() + name[1:],
            label=f"{report.unit}, {'lower' if name == OPTIMALITY_GAP else 'higher'} is better",
            what=f"{name} of the {report.unit}s with 95% bootstrap intervals",
        )
        for name, estimates in report.comparison.aggregates.items()
    ]


def _improvement(report: Report, styles: Mapping[str, ArmStyle]) -> Drawing | None:
    if report.comparison is None or not report.comparison.improvement:
        return None
    return forest(
        _estimated(report.comparison.improvement),
        styles,
        name="improvement",
        title="Probability of improvement",
        label=f"that a run beats one of {elided(report.control, 26)}",
        what=f"How probably a run beats one of {report.control}, with 95% bootstrap intervals",
        marked=0.5,
    )


def _estimated(estimates: Mapping[str, Estimate]) -> list[Row]:
    ends = {arm: (float(e.point), float(e.low), float(e.high)) for arm, e in estimates.items()}
    return [
        Row(arm, f"{number(point)} {interval(low, high)}", point, low, high)
        for arm, (point, low, high) in ends.items()
    ]


def _difference(report: Report, styles: Mapping[str, ArmStyle]) -> Drawing | None:
    if not report.verdicts:
        return None
    rows = []
    for verdict in report.verdicts:
        each = verdict.difference
        reach = interval(each.low, each.high, signed) if each.freedom else "no interval"
        shown = f"{signed(each.point)} {reach}"
        rows.append(Row(verdict.treatment, shown, each.point, each.low, each.high))
    control = report.control
    return forest(
        rows,
        styles,
        name="difference",
        title=f"Difference to {elided(control, 28)}",
        label=f"{report.unit}; right of the line: better",
        what=f"Difference of the mean {report.unit} to {control}, with the interval of the verdict",
        marked=0.0,
    )


def _profiles(report: Report, styles: Mapping[str, ArmStyle]) -> list[Drawing]:
    """Performance profiles, and their differences to the control's."""
    if (comparison := report.comparison) is None:
        return []
    thresholds = comparison.thresholds
    figure, axes = _shares(thresholds, comparison.profiles, styles)
    medians = [
        f"{arm}: median of the runs {number(float(np.median(comparison.scores[arm])))}"
        for arm in comparison.profiles
    ]
    axes.set(
        title="Performance profile",
        xlabel=report.unit,
        ylabel="share of runs above it",
        ylim=(-0.03, 1.03),
    )
    what = f"Share of runs whose {report.unit} is above each value"
    alt = f"{what}. {'; '.join(medians)}."
    drawings = [finish(figure, "profile", "Performance profile", alt)]
    if comparison.profile_differences:
        figure, axes = _shares(thresholds, comparison.profile_differences, styles)
        axes.axhline(0.0, color=FAINT, linewidth=1.2)
        largest = []
        for arm, share in comparison.profile_differences.items():
            place = int(np.abs(share.point).argmax())
            difference, value = signed(float(share.point[place])), number(float(thresholds[place]))
            largest.append(f"{arm}: at most {difference}, at {value}")
        axes.set(
            title=f"Profile minus that of {elided(report.control, 26)}",
            xlabel=report.unit,
            ylabel="difference in share above it",
        )
        alt = f"{what}, minus that of {report.control}. {'; '.join(largest)}."
        title = "Difference of performance profiles"
        drawings.append(finish(figure, "profile-difference", title, alt))
    return drawings


def _shares(
    thresholds: FloatArray, shares: Mapping[str, Estimate], styles: Mapping[str, ArmStyle]
) -> tuple[Figure, Axes]:
    """A line for each arm over normalised scores, with a shade for its intervals."""
    figure, axes = _with_legend(3.0, list(shares))
    for arm, share in shares.items():
        colour = styles[arm].colour
        axes.plot(
            thresholds,
            share.point,
            color=colour,
            linestyle=styles[arm].line,
            linewidth=2,
            label=elided(arm, _LEGEND_CHARACTERS),
        )
        axes.fill_between(thresholds, share.low, share.high, color=colour, alpha=0.12, linewidth=0)
    axes.set_xlim(thresholds[0], thresholds[-1])
    _add_legend(figure, axes)
    return figure, axes
