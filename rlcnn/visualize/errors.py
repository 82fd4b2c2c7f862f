"""How images were classified: confusion matrix, worst errors, and top-5 bars."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rlcnn.report.style import elided, styled
from rlcnn.runs.files import disk_errors, write_atomic
from rlcnn.supervised.evaluation.assessment import Assessment
from rlcnn.supervised.evaluation.metrics import Evaluation
from rlcnn.visualize.sheets import (
    CLASS_COLOUR,
    OTHER_COLOUR,
    Sheet,
    draw_image,
    new_sheet,
    rendered,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CONFUSION, WORST, TOP5 = "confusion", "worst", "top5"

# Most classes whose names fit along an axis, and whose counts fit into cells.
_NAMED_CLASSES, _COUNTED_CLASSES = 60, 20

_WORST, _BARS, _COLUMNS = 24, 8, 6
_LONGEST_CLASS, _LONGEST_NAME = 18, 28

Image = Callable[[int], torch.Tensor]
"""Index of an image in the data -> uint8 (channels, height, width)"""
Name = Callable[[int], str]
"""Index of an image in the data -> its name, such as that of its file"""


def error_sheets(assessment: Assessment, image: Image, name: Name) -> list[Sheet]:
    """All three pictures; without errors there is none of the worst ones."""
    evaluation = assessment.together

    def show(place: int) -> torch.Tensor:
        return image(assessment.indices[place])

    def named(place: int) -> str:
        return elided(name(assessment.indices[place]), _LONGEST_NAME)

    count = f"{len(evaluation.labels):,} images"
    # Images with one label have no name for it.
    of_task = "" if assessment.task == "class" else f", {assessment.task}"
    with styled():
        sheets = [
            Sheet(
                CONFUSION,
                f"Confusion matrix{of_task}",
                draw_confusion(evaluation),
                f"Of {count}: each row is a true class, and its cells are shares of its images.",
            )
        ]
        if worst := evaluation.worst(_WORST):
            sheets.append(
                Sheet(
                    WORST,
                    f"Misclassified{of_task}",
                    draw_misclassified(evaluation, worst, show, named),
                    f"Of {count}: those whose true class is the least probable, with the"
                    " probabilities of the true and the predicted class.",
                )
            )
        sheets.append(
            Sheet(
                TOP5,
                f"The most probable classes{of_task}",
                draw_top5(evaluation, show, named),
                f"Images spread evenly over {count}, as figure 4 of Krizhevsky et al. 2012.",
            )
        )
    return sheets


def write_error_plots(
    assessment: Assessment, image: Image, directory: Path, name: Name | None = None
) -> list[Path]:
    """Writes the pictures of :func:`error_sheets` as PNG; the picture of no errors is removed.

    ``directory`` is created if needed.

    Raises:
        UserError: the directory cannot be written.
    """
    with disk_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
    sheets = error_sheets(assessment, image, name or (lambda index: f"image {index}"))
    if WORST not in {sheet.name for sheet in sheets}:
        (directory / f"{WORST}.png").unlink(missing_ok=True)
    files = []
    for sheet in sheets:
        files.append(directory / f"{sheet.name}.png")
        write_atomic(files[-1], rendered(sheet).png)
    return files


def draw_confusion(evaluation: Evaluation) -> Figure:
    """Shares of each true class (rows) by predicted class, of the classes that occur."""
    counts = evaluation.confusion()
    classes = [elided(evaluation.classes[i], _LONGEST_CLASS) for i in evaluation.occurring()]
    shares = counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
    side = min(16.0, 3.0 + 0.3 * len(classes))
    figure = new_sheet(side + 1, side)
    axes = figure.subplots()
    drawn = axes.imshow(shares, cmap="viridis", vmin=0, vmax=1, interpolation="nearest")
    figure.colorbar(drawn, ax=axes, label="share of the true class", shrink=0.8)
    axes.set(xlabel="predicted class", ylabel="true class")
    axes.grid(False)
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


def draw_misclassified(
    evaluation: Evaluation, places: Sequence[int], show: Image, name: Name
) -> Figure:
    """Misclassified images with the probabilities of their true and their predicted class.

    ``places`` are those in the evaluation; ``show`` and ``name`` take a place.
    """
    columns = min(_COLUMNS, len(places))
    rows = math.ceil(len(places) / columns)
    figure = new_sheet(max(4.0, 1.9 * columns), 2.45 * rows + 0.4)
    panels: list[Any] = list(figure.subplots(rows, columns, squeeze=False).flat)

    def probable(place: int, index: int) -> str:
        share = 100 * float(evaluation.probabilities[place, index])
        return f"{elided(evaluation.classes[index], _LONGEST_CLASS)} {share:.1f}%"

    for panel, place in zip(panels, places, strict=False):
        true, predicted = int(evaluation.labels[place]), int(evaluation.predicted[place])
        draw_image(panel, show(place), name(place))
        panel.set_xlabel(
            f"true: {probable(place, true)}\npredicted: {probable(place, predicted)}",
            fontsize="x-small",
        )
    for panel in panels[len(places) :]:
        panel.set_axis_off()
    return figure


def draw_top5(evaluation: Evaluation, show: Image, name: Name) -> Figure:
    """Bars of the five most probable classes, for images spread evenly over the data.

    As figure 4 of Krizhevsky et al. 2012; ``show`` and ``name`` take a place in the evaluation.
    """
    count = min(_BARS, len(evaluation.labels))
    columns = min(4, count)
    rows = math.ceil(count / columns)
    figure = new_sheet(max(4.0, 2.9 * columns), 3.7 * rows + 0.6)
    panels = figure.subplots(2 * rows, columns, squeeze=False, height_ratios=[3, 2] * rows)
    highest = min(5, len(evaluation.classes))
    for panel in (*panels[::2].flat[count:], *panels[1::2].flat[count:]):
        panel.set_axis_off()
    for number in range(count):
        place = round(number * (len(evaluation.labels) - 1) / max(1, count - 1))
        row, column = divmod(number, columns)
        above, below = panels[2 * row : 2 * row + 2, column]
        true = int(evaluation.labels[place])
        true_class = elided(evaluation.classes[true], _LONGEST_CLASS)
        draw_image(above, show(place), f"{name(place)}\n{true_class}")
        shares, classes = evaluation.probabilities[place].topk(highest)
        hit = [index == true for index in classes.tolist()]
        below.barh(
            range(highest),
            shares.tolist(),
            color=[CLASS_COLOUR if own else OTHER_COLOUR for own in hit],
            hatch=["" if own else "///" for own in hit],
            edgecolor="white",
            linewidth=0,
        )
        named = [elided(evaluation.classes[i], _LONGEST_CLASS) for i in classes.tolist()]
        below.set_yticks(range(highest), named, fontsize="x-small")
        below.set_xlim(0, 1)
        below.invert_yaxis()
        below.tick_params(axis="x", labelsize="x-small")
        below.set_xlabel("probability", fontsize="x-small")
    from matplotlib.patches import Patch

    bars: dict[str, Any] = {"edgecolor": "white", "linewidth": 0}
    meanings = [
        Patch(facecolor=CLASS_COLOUR, label="true class", **bars),
        Patch(facecolor=OTHER_COLOUR, hatch="///", label="another class", **bars),
    ]
    figure.legend(handles=meanings, loc="outside lower left", ncols=2)
    return figure
