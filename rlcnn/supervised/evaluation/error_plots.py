"""Plots of an evaluation: confusion matrix, worst errors, and top-5 bars."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rlcnn.runs.files import disk_errors, write_atomic
from rlcnn.supervised.evaluation.assessment import Assessment
from rlcnn.supervised.evaluation.metrics import Evaluation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CONFUSION, WORST, TOP5 = "confusion.png", "worst.png", "top5.png"

# Most classes whose names fit along an axis, and whose counts fit into cells.
_NAMED_CLASSES, _COUNTED_CLASSES = 60, 20

_WORST, _BARS, _COLUMNS = 24, 8, 6
_TRUE, _OTHER = "tab:red", "tab:blue"

Image = Callable[[int], torch.Tensor]


def write_error_plots(
    assessment: Assessment, image: Image, directory: Path, names: Sequence[str] | None = None
) -> list[Path]:
    """Writes all three plots; without errors there is no plot of the worst ones.

    ``image`` maps the index of an image in the data to uint8 (channels, height, width). Of other
    than 1 or 3 channels only the last, the newest frame of a stack, is drawn. ``directory`` is
    created if needed, and ``names`` are those of the images, such as their files'.

    Raises:
        UserError: the directory cannot be written.
    """
    with disk_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
    evaluation = assessment.together

    def show(place: int) -> torch.Tensor:
        return image(assessment.indices[place])

    def name(place: int) -> str:
        index = assessment.indices[place]
        return names[index] if names else f"image {index}"

    drawn = {CONFUSION: _confusion(evaluation)}
    if worst := evaluation.worst(_WORST):
        drawn[WORST] = _worst(evaluation, worst, show, name)
    else:
        (directory / WORST).unlink(missing_ok=True)
    drawn[TOP5] = _bars(evaluation, show, name)
    for file, figure in drawn.items():
        content = io.BytesIO()
        figure.savefig(content, format="png", dpi=120)
        write_atomic(directory / file, content.getvalue())
    return [directory / file for file in drawn]


def _figure(width: float, height: float) -> Figure:
    # pyplot would keep every figure and might need a display.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _confusion(evaluation: Evaluation) -> Figure:
    counts = evaluation.confusion()
    classes = [evaluation.classes[index] for index in evaluation.occurring()]
    shares = counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
    side = min(16.0, 3.0 + 0.3 * len(classes))
    figure = _figure(side + 1, side)
    axes = figure.subplots()
    drawn = axes.imshow(shares, cmap="viridis", vmin=0, vmax=1, interpolation="nearest")
    figure.colorbar(drawn, ax=axes, label="share of the true class", shrink=0.8)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if len(classes) <= _NAMED_CLASSES:
        small = "small" if len(classes) <= _COUNTED_CLASSES else "xx-small"
        axes.set_xticks(range(len(classes)), classes, rotation=90, fontsize=small)
        axes.set_yticks(range(len(classes)), classes, fontsize=small)
    if len(classes) <= _COUNTED_CLASSES:
        for row, column in counts.nonzero().tolist():
            style: dict[str, Any] = {"fontsize": "x-small", "ha": "center", "va": "center"}
            colour = "white" if shares[row, column] < 0.5 else "black"
            axes.text(column, row, str(int(counts[row, column])), color=colour, **style)
    return figure


def _worst(
    evaluation: Evaluation, places: Sequence[int], show: Image, name: Callable[[int], str]
) -> Figure:
    rows = math.ceil(len(places) / _COLUMNS)
    figure = _figure(2.0 * _COLUMNS, 2.6 * rows)
    figure.suptitle("misclassified, the least probable true class first")
    panels: list[Any] = list(figure.subplots(rows, _COLUMNS, squeeze=False).flat)

    def named(place: int, index: int) -> str:
        share = float(evaluation.probabilities[place, index])
        return f"{_short(evaluation.classes[index])} ({100 * share:.1f}%)"

    for panel, place in zip(panels, places, strict=False):
        true, predicted = int(evaluation.labels[place]), int(evaluation.predicted[place])
        title = f"{name(place)}\n{named(place, true)}\npredicted {named(place, predicted)}"
        _draw(panel, show(place))
        panel.set_title(title, fontsize="xx-small")
    for panel in panels:
        panel.set_axis_off()
    return figure


def _bars(evaluation: Evaluation, show: Image, name: Callable[[int], str]) -> Figure:
    """As figure 4 of Krizhevsky et al. 2012, for images spread evenly over the data."""
    count = min(_BARS, len(evaluation.labels))
    columns = min(4, count)
    rows = math.ceil(count / columns)
    figure = _figure(3.2 * columns, 4.2 * rows)
    panels = figure.subplots(2 * rows, columns, squeeze=False, height_ratios=[3, 2] * rows)
    highest = min(5, len(evaluation.classes))
    for panel in (*panels[::2].flat[count:], *panels[1::2].flat[count:]):
        panel.set_axis_off()
    for number in range(count):
        place = round(number * (len(evaluation.labels) - 1) / max(1, count - 1))
        row, column = divmod(number, columns)
        above, below = panels[2 * row : 2 * row + 2, column]
        true = int(evaluation.labels[place])
        _draw(above, show(place))
        above.set_axis_off()
        above.set_title(f"{name(place)}\n{_short(evaluation.classes[true])}", fontsize="x-small")
        shares, classes = evaluation.probabilities[place].topk(highest)
        colours = [_TRUE if index == true else _OTHER for index in classes.tolist()]
        below.barh(range(highest), shares.tolist(), color=colours)
        named = [_short(evaluation.classes[index]) for index in classes.tolist()]
        below.set_yticks(range(highest), named, fontsize="x-small")
        below.set_xlim(0, 1)
        below.invert_yaxis()
        below.tick_params(axis="x", labelsize="xx-small")
    return figure


def _draw(axes: Axes, image: torch.Tensor) -> None:
    pixels = image if image.shape[0] in (1, 3) else image[-1:]
    axes.imshow(pixels.permute(1, 2, 0).expand(-1, -1, 3).numpy())


def _short(name: str) -> str:
    return name if len(name) <= 24 else name[:23] + "…"
