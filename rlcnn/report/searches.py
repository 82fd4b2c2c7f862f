"""The page of a search for hyperparameters: its content, its figures, and how it is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rlcnn.report.content import Report
from rlcnn.report.page import templates
from rlcnn.report.plots import draw, file_names
from rlcnn.report.style import (
    FAINT,
    INK,
    Drawing,
    arm_styles,
    elided,
    finish,
    new_figure,
    number,
    percent,
    styled,
)
from rlcnn.report.writing import PAGE, write_figures
from rlcnn.runs.files import write_atomic

_BEST, _OTHER = "#0072B2", "#6b6b6b"


class Axis(NamedTuple):
    """An option that a search varies; ``log`` is the scale of its range, if it has one."""

    name: str
    is_range: bool
    log: bool


@dataclass(frozen=True)
class TrialRow:
    """A trial, as the page shows it.

    Attributes:
        number: in the order of proposals.
        state: "done", "pruned", "failed" or "begun".
        value: of the objective; None without one, and if it has no place in a figure.
        shown: the value for people.
        values: of the options, and ``texts`` as a command line has them.
        score: mean return of the final evaluation; steps and seconds were taken.
        reason: why it failed.
    """

    number: int
    state: str
    value: float | None
    shown: str
    values: Sequence[Any]
    texts: Sequence[str]
    score: float | None = None
    steps: int | None = None
    wall_seconds: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class SearchReport:
    """All that the page of a search shows.

    Attributes:
        title: of the page.
        objective: what the value of a trial is, for people; ``label`` in few words.
        lower_is_better: whether smaller values are better.
        axes: the options.
        trials: in order, without skipped ones.
        finals: name, result and options of each finalist.
        winner: its options; empty while there is none.
        notes: lines about the winner.
        importances: option -> share.
        runs: the runs of the finalists, which are its arms, with their curves; also the command
            and the facts of the search.
    """

    title: str
    objective: str
    label: str
    lower_is_better: bool
    axes: tuple[Axis, ...]
    trials: tuple[TrialRow, ...]
    finals: tuple[tuple[str, str, str], ...]
    winner: str
    notes: tuple[str, ...]
    importances: Mapping[str, float]
    runs: Report

    @property
    def names(self) -> list[str]:
        """Names of the options."""
        return [axis.name for axis in self.axes]

    @property
    def states(self) -> str:
        """How many trials are in each state."""
        counts = Counter(trial.state for trial in self.trials)
        names = {"begun": "not finished"}
        parts = [f"{count} {names.get(state, state)}" for state, count in counts.items()]
        return f"{len(self.trials)} trials: {', '.join(parts)}" if parts else "No trials yet"


def write_search_report(report: SearchReport, directory: Path) -> Path:
    """Writes the figures and the page, ``report.html``; returns the page.

    Raises:
        UserError: the disk is full or cannot be written.
    """
    drawings = draw(report.runs) | draw_search(report)
    write_figures(drawings, {}, directory)
    page = directory / PAGE
    write_atomic(page, render_search(report, drawings))
    return page


def render_search(report: SearchReport, drawings: Mapping[str, Drawing]) -> str:
    """Fills the template: a whole HTML document. The same arguments give the same text."""
    runs = report.runs
    return (
        templates()
        .get_template("search.html")
        .render(
            search=report,
            report=runs,
            drawings=drawings,
            styles=arm_styles(runs.arm_names, runs.control),
            states=Counter(run.state for run in runs.runs),
        )
    )


def draw_search(report: SearchReport) -> dict[str, Drawing]:
    """The figures: ``history``, ``importance`` and, for each option, ``values-OPTION``."""
    files = file_names(report.names)
    with styled():
        drawings = [
            *_history(report),
            *_importance(report),
            *(
                drawing
                for place, axis in enumerate(report.axes)
                for drawing in _values(report, place, files[axis.name])
            ),
        ]
    return {drawing.name: drawing for drawing in drawings}


def _history(report: SearchReport) -> Iterator[Drawing]:
    done = [trial for trial in report.trials if trial.value is not None]
    if not done:
        return
    numbers = [trial.number for trial in done]
    values = np.array([trial.value for trial in done])
    best = (np.minimum if report.lower_is_better else np.maximum).accumulate(values)
    from matplotlib.ticker import MaxNLocator

    figure = new_figure(3.2)
    axes = figure.subplots()
    axes.plot(numbers, values, "o", color=_OTHER, markersize=5, label="trial")
    axes.step(numbers, best, where="post", color=_BEST, linewidth=2, label="best so far")
    for state, marker in (("pruned", "|"), ("failed", "x")):
        ended = [trial.number for trial in report.trials if trial.state == state]
        if ended:
            # At the lower edge: they have no value.
            across = axes.get_xaxis_transform()
            axes.plot(
                ended, [0.02] * len(ended), marker, color=FAINT, transform=across, label=state
            )
    axes.set(title="Trials", xlabel="trial", ylabel=report.label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(y=0.1)
    figure.legend(loc="outside lower left", ncols=4)
    alt = (
        f"Value of {len(done)} trials: {report.objective}. The first is {number(values[0])},"
        f" the best {number(best[-1])}."
    )
    yield finish(figure, "history", "History", alt)


def _importance(report: SearchReport) -> Iterator[Drawing]:
    if not report.importances:
        return
    names = list(report.importances)
    shares = [report.importances[name] for name in names]
    figure = new_figure(0.9 + 0.34 * len(names))
    axes = figure.subplots()
    axes.barh(range(len(names)), shares, color=_BEST, height=0.6)
    for place, share in enumerate(shares):
        axes.text(share, place, f" {percent(share)}", va="center", fontsize=9, color=INK)
    axes.set_yticks(range(len(names)), [elided(name, 30) for name in names])
    axes.invert_yaxis()
    axes.set(title="Importance", xlabel="share of the variance of ranks", xlim=(0, 1.15))
    parts = "; ".join(f"{name} {percent(report.importances[name])}" for name in names)
    yield finish(figure, "importance", "Importance", f"Importance of each option: {parts}.")


def _values(report: SearchReport, place: int, file: str) -> Iterator[Drawing]:
    axis = report.axes[place]
    done = [trial for trial in report.trials if trial.value is not None]
    if not done:
        return
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    heights = [trial.value or 0.0 for trial in done]
    figure = new_figure(2.6)
    axes = figure.subplots()
    if axis.is_range:
        places: list[Any] = [trial.values[place] for trial in done]
        if axis.log:
            axes.set_xscale("log")
            # The figures' style has no powers.
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        # Choices in their order of size, if they have one, and by name otherwise.
        named = {trial.texts[place]: trial.values[place] for trial in done}
        texts = sorted(named, key=lambda text: _order(named[text]))
        places = [texts.index(trial.texts[place]) for trial in done]
        axes.set_xticks(range(len(texts)), [elided(text, 14) for text in texts])
        axes.set_xlim(-0.5, len(texts) - 0.5)
    axes.plot(places, heights, "o", color=_BEST, alpha=0.6, markersize=6)
    axes.set(xlabel=axis.name, ylabel=report.label)
    axes.margins(x=0.06, y=0.1)
    pick = min if report.lower_is_better else max
    best = pick(done, key=lambda trial: trial.value or 0.0)
    alt = f"Value of each trial by {axis.name}; the best, {best.shown}, has {best.texts[place]}."
    yield finish(figure, f"values-{file}", axis.name, alt)


def _order(value: Any) -> tuple[bool, float, str]:
    is_number = isinstance(value, int | float)
    return not is_number, float(value) if is_number else 0.0, str(value)
