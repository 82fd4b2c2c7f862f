"""Figures with a row for each arm: name and figures above, a point or an interval below."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from rlcnn.report.style import FAINT, ArmStyle, Drawing, elided, finish, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Characters that fit above a row, name and figures together.
_ROW_CHARACTERS = 52


class Row(NamedTuple):
    """The name of an arm, its figures as text, its value and the ends of its interval.

    An end is not finite if there is no interval.
    """

    arm: str
    shown: str
    point: float = math.nan
    low: float = math.nan
    high: float = math.nan


def forest(
    rows: Sequence[Row],
    styles: Mapping[str, ArmStyle],
    *,
    name: str,
    title: str,
    label: str,
    what: str,
    marked: float | None = None,
) -> Drawing:
    """A figure of estimates with their intervals.

    ``name`` is that of its files, ``label`` that of the axis, and ``what`` the content of the
    figure for readers who cannot see it. A line through all rows is at ``marked``.
    """
    figure, axes = row_figure(rows)
    if marked is not None:
        axes.axvline(marked, color=FAINT, linewidth=1.2)
    for place, row in enumerate(rows):
        style = styles[row.arm]
        if math.isfinite(row.low) and math.isfinite(row.high):
            axes.plot([row.low, row.high], [place] * 2, color=style.colour, linewidth=2.6)
        axes.plot(row.point, place, style.marker, color=style.colour, markersize=8)
    axes.margins(x=0.08)
    axes.set(title=title, xlabel=label)
    alt = f"{what}: {'; '.join(f'{row.arm} {row.shown}' for row in rows)}."
    return finish(figure, name, title, alt)


def row_figure(rows: Sequence[Row]) -> tuple[Figure, Axes]:
    """An empty figure; row ``i`` is at height ``i``.

    Names are above their rows, so that a long name takes no room from the plot.
    """
    figure = new_figure(0.85 + 0.5 * len(rows))
    axes = figure.subplots()
    across = axes.get_yaxis_transform()
    # A white box, so that no line crosses the text.
    paper = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
    options: Any = {"transform": across, "fontsize": 9, "bbox": paper}
    for place, row in enumerate(rows):
        name = elided(row.arm, max(12, _ROW_CHARACTERS - len(row.shown)))
        axes.text(0, place - 0.26, name, **options)
        axes.text(1, place - 0.26, row.shown, ha="right", color=FAINT, **options)
    axes.set_yticks([])
    axes.set_ylim(len(rows) - 0.6, -0.85)
    axes.spines["left"].set_visible(False)
    return figure, axes
