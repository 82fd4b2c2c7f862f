"""A benchmark's result as a figure."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from agents.benchmark.encoder_table import EncoderTimes
from agents.benchmark.report import title
from agents.benchmark.suite import OURS, AlgorithmResult, BenchmarkResult
from agents.measure.timing import Spread
from envs.errors import UserError
from rlcnn.runs.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS = ("png", "svg", "pdf")
_BOUND = "throughput bound"
_COLOURS = {_BOUND: "lightgrey", OURS: "tab:blue"}
_OTHERS = "tab:orange"


def check_chart_path(path: Path) -> None:
    """Raises ``UserError`` if the suffix of a file name is none of ``FORMATS``."""
    if path.suffix.removeprefix(".") not in FORMATS:
        raise UserError(f'--plot "{path}" must end in one of .{", .".join(FORMATS)}')


def write_chart(result: BenchmarkResult, path: Path) -> None:
    """Draws medians as bars with their ranges, one panel for each algorithm and one of encoders.

    Errors are those of :func:`check_chart_path`, or the file cannot be written.
    """
    check_chart_path(path)
    # Only here: measured processes import the script, and with it this module.
    from matplotlib.figure import Figure

    panels = len(result.algorithms) + bool(result.encoders)
    figure = Figure(figsize=(8, 0.5 + 3.2 * panels), layout="constrained")
    axes = list(figure.subplots(panels, squeeze=False).flat)
    for algorithm, panel in zip(result.algorithms.values(), axes, strict=False):
        _draw_algorithm(algorithm, panel)
    if result.encoders:
        _draw_encoders(result.encoders, axes[-1])
    drawn = io.BytesIO()
    figure.savefig(drawn, format=path.suffix.removeprefix("."), dpi=150)
    write_atomic(path, drawn.getvalue())


def _draw_algorithm(result: AlgorithmResult, axes: Axes) -> None:
    bars = {name: agent.rate for name, agent in result.agents.items()}
    if result.bound:
        bars = {_BOUND: result.bound, **bars}
    colours = [_COLOURS.get(name, _OTHERS) for name in bars]
    _draw_bars(axes, list(bars), list(bars.values()), colours)
    axes.set_title(title(result), fontsize="small", loc="left")
    axes.set_xlabel("steps per second")


def _draw_encoders(rows: list[EncoderTimes], axes: Axes) -> None:
    names = [f"{row.name}, {row.precision}" for row in rows]
    _draw_bars(axes, names, [row.total_ms for row in rows], [_COLOURS[OURS]] * len(rows))
    axes.set_title("encoders, forward and backward", fontsize="small", loc="left")
    axes.set_xlabel("milliseconds")
    axes.set_xscale("log")
    axes.tick_params(axis="y", labelsize="x-small")


def _draw_bars(axes: Axes, names: list[str], spreads: list[Spread], colours: list[str]) -> None:
    medians = [spread.median for spread in spreads]
    reach = (
        [spread.median - spread.least for spread in spreads],
        [spread.most - spread.median for spread in spreads],
    )
    places = range(len(names))
    axes.barh(places, medians, xerr=reach, color=colours, capsize=3)
    axes.set_yticks(places, names)
    axes.invert_yaxis()
