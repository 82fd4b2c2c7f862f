"""The figures of a report."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from rlcnn.report.comparison import OPTIMALITY_GAP
from rlcnn.report.content import Levels, Report, RunRow
from rlcnn.report.curves import MeanCurve, RunCurve, mean_curve
from rlcnn.report.style import FAINT, INK, Drawing, Look, elided, finish, looks, new_figure, styled
from rlcnn.report.words import interval, number, signed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Beyond so many runs of an arm its single curves hide the mean.
_MOST_THIN = 12

# A level further from the returns than so many times their range would squeeze them flat.
_LEVEL_REACH = 0.75

_LEGEND_CHARACTERS, _ROW_CHARACTERS = 46, 30


def draw(report: Report) -> dict[str, Drawing]:
    """Every figure that a study has the results for, by name.

    Names are ``curve-GAME``, ``scores-GAME``, ``aggregate-NAME``, ``difference``, ``improvement``
    and ``profile``.
    """
    look = looks(report.arm_names, report.control)
    names = file_names(report.games)
    with styled():
        drawings = [
            *(_curves(report, game, look, names[game]) for game in report.games),
            *(_scores(report, game, look, names[game]) for game in report.games),
            _difference(report, look),
            *_aggregates(report, look),
            _improvement(report, look),
            _profile(report, look),
        ]
    return {drawing.name: drawing for drawing in drawings if drawing is not None}


def file_names(names: Sequence[str]) -> dict[str, str]:
    """A file name for each name, no two alike, with nothing in it that disks take amiss."""
    plain = {name: re.sub(r"[^A-Za-z0-9.=]+", "-", name).strip("-.") or "game" for name in names}
    counts = Counter(file.lower() for file in plain.values())
    return {
        name: f"{file}-{place}" if counts[file.lower()] > 1 else file
        for place, (name, file) in enumerate(plain.items(), start=1)
    }


# -- learning curves and scores --------------------------------------------------------------------


def _curves(report: Report, game: str, look: Mapping[str, Look], file: str) -> Drawing | None:
    from matplotlib.ticker import EngFormatter

    curves = {arm: runs for arm, runs in report.curves.get(game, {}).items() if _any_points(runs)}
    if not curves:
        return None
    longest = max(len(elided(arm, _LEGEND_CHARACTERS)) for arm in curves)
    columns = 2 if longest <= 22 else 1
    figure = new_figure(3.1 + 0.19 * math.ceil(len(curves) / columns))
    axes = figure.subplots()
    told, reached = [], []
    end = max(curve.steps[-1] for runs in curves.values() for curve in runs if len(curve.steps))
    for arm, runs in curves.items():
        _thin_lines(axes, runs, look[arm])
        reached += [value for curve in runs for value in curve.returns]
        mean = mean_curve(runs, until=end)
        label = elided(arm, _LEGEND_CHARACTERS)
        if mean is None:
            axes.plot([], [], color=look[arm].colour, linestyle=look[arm].line, label=label)
            told.append(f"{arm}: no run has ended")
            continue
        _mean_line(axes, mean, look[arm], label)
        told.append(f"{arm} {_end_of(mean)}")
    _levels(axes, report.levels.get(game, Levels()), reached)
    axes.set_title(elided(game, _LEGEND_CHARACTERS))
    axes.set_xlabel("agent steps")
    axes.set_ylabel("mean return")
    axes.set_xlim(0, end)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.margins(y=0.08)
    figure.legend(loc="outside lower left", ncols=columns, handlelength=1.8, columnspacing=1.2)
    alt = f"Learning curves in {game}: {report.curves_of}, at the end: {'; '.join(told)}."
    return finish(figure, f"curve-{file}", f"Learning curves, {game}", alt)


def _any_points(runs: Sequence[RunCurve]) -> bool:
    return any(len(curve.steps) for curve in runs)


def _thin_lines(axes: Axes, runs: Sequence[RunCurve], look: Look) -> None:
    for curve in runs:
        if len(runs) <= _MOST_THIN:
            axes.plot(curve.steps, curve.returns, color=look.colour, linewidth=0.7, alpha=0.35)
        if curve.failed_as is not None and len(curve.steps):
            axes.plot(curve.steps[-1], curve.returns[-1], "x", color=look.colour, markersize=7)


def _mean_line(axes: Axes, mean: MeanCurve, look: Look, label: str) -> None:
    few = len(mean.steps) <= 30
    axes.plot(
        mean.steps,
        mean.mean,
        color=look.colour,
        linestyle=look.line,
        linewidth=2,
        marker=look.marker if few else None,
        markersize=4,
        label=label,
    )
    if mean.runs > 1:
        axes.fill_between(
            mean.steps, mean.low, mean.high, color=look.colour, alpha=0.15, linewidth=0
        )


def _end_of(mean: MeanCurve) -> str:
    told = number(mean.mean[-1])
    if mean.runs > 1:
        told += f" (95% interval {interval(mean.low[-1], mean.high[-1])}, {mean.runs} runs)"
    return told


def _levels(axes: Axes, levels: Levels, reached: Sequence[float]) -> None:
    values = [*reached, *([] if levels.random is None else [levels.random])]
    low, high = min(values), max(values)
    reach = _LEVEL_REACH * (high - low)
    for name, level, line in (("human", levels.human, "--"), ("random", levels.random, ":")):
        if level is None:
            continue
        if not low - reach <= level <= high + reach:
            axes.annotate(
                f"{name} {number(level)}: beyond this figure",
                (0.02, 0.98),
                xycoords="axes fraction",
                va="top",
                fontsize=8,
                color=FAINT,
            )
            continue
        axes.axhline(level, color=FAINT, linestyle=line, linewidth=1)
        axes.annotate(
            f"{name} {number(level)}",
            (0, level),
            xycoords=axes.get_yaxis_transform(),
            xytext=(3, 2),
            textcoords="offset points",
            fontsize=8,
            color=FAINT,
        )


def _scores(report: Report, game: str, look: Mapping[str, Look], file: str) -> Drawing | None:
    levels = report.levels.get(game, Levels())
    rows, told = [], []
    for arm in report.arm_names:
        runs = report.runs_of(game, arm)
        scores = [run.score for run in runs if run.score is not None]
        state = _states(runs)
        shown = f"mean {number(float(np.mean(scores)))}{state}" if scores else f"no score{state}"
        rows.append(_Row(arm, shown, math.nan))
        told.append(f"{arm}: {shown} ({', '.join(map(number, scores))})" if scores else shown)
    known = [run.score for run in report.runs if run.game == game and run.score is not None]
    if not known:
        return None
    figure = new_figure(_forest_height(len(rows)))
    axes = figure.subplots()
    for place, arm in enumerate(report.arm_names):
        runs = report.runs_of(game, arm)
        scores = [run.score for run in runs if run.score is not None]
        colour = look[arm].colour
        axes.plot(scores, [place] * len(scores), "o", color=colour, alpha=0.55, markersize=6)
        if scores:
            axes.plot(np.mean(scores), place, "|", color=INK, markersize=15, markeredgewidth=2)
        failed = sum(run.state == "failed" for run in runs)
        if failed and levels.random is not None:
            axes.plot([levels.random] * failed, [place] * failed, "x", color=colour, markersize=7)
    values = [*known, *([] if levels.random is None else [levels.random])]
    reach = _LEVEL_REACH * (max(values) - min(values))
    for name, level, line in (("human", levels.human, "--"), ("random", levels.random, ":")):
        if level is not None and min(values) - reach <= level <= max(values) + reach:
            axes.axvline(level, color=FAINT, linestyle=line, linewidth=1, label=name)
            told.append(f"{name} {number(level)}")
    _name_rows(axes, rows)
    axes.margins(x=0.06)
    axes.set_title(f"{elided(game, _LEGEND_CHARACTERS)}: every run's score")
    axes.set_xlabel("mean return of the last agent (dashed: human, dotted: random)")
    alt = f"Final scores of every run in {game}: {'; '.join(told)}."
    return finish(figure, f"scores-{file}", f"Scores, {game}", alt)


def _states(runs: Sequence[RunRow]) -> str:
    counts = Counter(run.state for run in runs)
    open_runs = counts["begun"] + counts["waiting"]
    parts = [f"{counts['failed']} failed"] * bool(counts["failed"])
    parts += [f"{open_runs} not done"] * bool(open_runs)
    return f", {', '.join(parts)}" if parts else ""


# -- one row for each arm --------------------------------------------------------------------------


class _Row(NamedTuple):
    """An arm's figure; NaN where nothing is drawn, infinite ends where there is no interval."""

    arm: str
    shown: str
    point: float
    low: float = math.nan
    high: float = math.nan


def _forest(
    rows: Sequence[_Row],
    look: Mapping[str, Look],
    *,
    name: str,
    title: str,
    label: str,
    marked: float | None = None,
    what: str,
) -> Drawing:
    figure = new_figure(_forest_height(len(rows)))
    axes = figure.subplots()
    if marked is not None:
        axes.axvline(marked, color=FAINT, linewidth=1.2)
    for place, row in enumerate(rows):
        if math.isfinite(row.low) and math.isfinite(row.high):
            axes.plot([row.low, row.high], [place] * 2, color=look[row.arm].colour, linewidth=2.6)
        axes.plot(row.point, place, look[row.arm].marker, color=look[row.arm].colour, markersize=8)
    _name_rows(axes, rows)
    axes.margins(x=0.08)
    axes.set_title(title)
    axes.set_xlabel(label)
    alt = f"{what}: {'; '.join(f'{row.arm} {row.shown}' for row in rows)}."
    return finish(figure, name, title, alt)


def _forest_height(rows: int) -> float:
    return 0.85 + 0.5 * rows


def _name_rows(axes: Axes, rows: Sequence[_Row]) -> None:
    """Writes each row's name and figures above it, where long names take no room from the plot."""
    across = axes.get_yaxis_transform()
    for place, row in enumerate(rows):
        room = max(12, _ROW_CHARACTERS + 22 - len(row.shown))
        height = place - 0.26
        axes.text(0.0, height, elided(row.arm, room), transform=across, fontsize=9)
        axes.text(1.0, height, row.shown, transform=across, fontsize=9, ha="right", color=FAINT)
    axes.set_yticks([])
    axes.set_ylim(len(rows) - 0.6, -0.85)
    axes.spines["left"].set_visible(False)


def _aggregates(report: Report, look: Mapping[str, Look]) -> list[Drawing]:
    if report.comparison is None:
        return []
    drawings = []
    for name, estimates in report.comparison.aggregates.items():
        rows = [
            _Row(arm, _estimated(*ends), *ends)
            for arm, each in estimates.items()
            for ends in [(float(each.point), float(each.low), float(each.high))]
        ]
        better = "lower is better" if name == OPTIMALITY_GAP else "higher is better"
        drawings.append(
            _forest(
                rows,
                look,
                name=f"aggregate-{name.replace(' ', '-')}",
                title=name[0].upper() + name[1:],
                label=f"{report.unit}, {better}",
                what=f"{name} of the {report.unit}s with 95% bootstrap intervals",
            )
        )
    return drawings


def _difference(report: Report, look: Mapping[str, Look]) -> Drawing | None:
    if not report.verdicts:
        return None
    rows = []
    for verdict in report.verdicts:
        each = verdict.difference
        reach = interval(each.low, each.high, signed) if each.freedom else "no interval"
        shown = f"{signed(each.point)} {reach}"
        rows.append(_Row(verdict.treatment, shown, each.point, each.low, each.high))
    control = report.control
    return _forest(
        rows,
        look,
        name="difference",
        title=f"Difference to {elided(control, 28)}",
        label=f"{report.unit}; right of the line: better",
        marked=0.0,
        what=f"Difference of the mean {report.unit} to {control}, with the interval that judges it",
    )


def _improvement(report: Report, look: Mapping[str, Look]) -> Drawing | None:
    if report.comparison is None or not report.comparison.improvement:
        return None
    rows = [
        _Row(arm, _estimated(*ends), *ends)
        for arm, each in report.comparison.improvement.items()
        for ends in [(float(each.point), float(each.low), float(each.high))]
    ]
    return _forest(
        rows,
        look,
        name="improvement",
        title="Probability of improvement",
        label=f"that a run beats one of {elided(report.control, 26)}",
        marked=0.5,
        what=f"How probably a run beats one of {report.control}, with 95% bootstrap intervals",
    )


def _estimated(point: float, low: float, high: float) -> str:
    return f"{number(point)} {interval(low, high)}"


def _profile(report: Report, look: Mapping[str, Look]) -> Drawing | None:
    comparison = report.comparison
    if comparison is None:
        return None
    longest = max(len(elided(arm, _LEGEND_CHARACTERS)) for arm in comparison.profiles)
    columns = 2 if longest <= 22 else 1
    figure = new_figure(3.0 + 0.19 * math.ceil(len(comparison.profiles) / columns))
    axes = figure.subplots()
    told = []
    for arm, share in comparison.profiles.items():
        look_of = look[arm]
        axes.plot(
            comparison.thresholds,
            share.point,
            color=look_of.colour,
            linestyle=look_of.line,
            linewidth=2,
            label=elided(arm, _LEGEND_CHARACTERS),
        )
        axes.fill_between(
            comparison.thresholds,
            share.low,
            share.high,
            color=look_of.colour,
            alpha=0.12,
            linewidth=0,
        )
        median = float(np.median(comparison.scores[arm]))
        told.append(f"{arm}: half of the runs above {number(median)}")
    axes.set_title("Performance profile")
    axes.set_xlabel(report.unit)
    axes.set_ylabel("share of runs above it")
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlim(comparison.thresholds[0], comparison.thresholds[-1])
    figure.legend(loc="outside lower left", ncols=columns, handlelength=1.8, columnspacing=1.2)
    alt = f"Share of runs whose {report.unit} is above each value. {'; '.join(told)}."
    return finish(figure, "profile", "Performance profile", alt)
