"""Titled pictures on disk (PNG and SVG), in one self-contained HTML gallery, and in a tracker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from rlcnn.report.page import templates
from rlcnn.report.style import Drawing, finish, styled
from rlcnn.report.tracked import track_page
from rlcnn.runs.files import disk_errors, write_atomic
from rlcnn.runs.tracking.tracker import RunCard, TrackMode
from rlcnn.visualize.gallery.options import PAGE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Blue and vermilion, which differ without red-green vision and in grey (Okabe & Ito 2008).
CLASS_COLOUR, OTHER_COLOUR = "#0072B2", "#D55E00"
LARGEST_SVG = 500_000


@dataclass(frozen=True)
class Sheet:
    """A picture for a gallery.

    Attributes:
        name: name of its files, without an ending.
        title: what it shows; drawn above it.
        figure: the picture, without a title of its own. It is made within
            :func:`rlcnn.report.style.styled`.
        caption: how to read it, in one or two sentences; shown below it in the gallery.
        command: the command that makes it.
    """

    name: str
    title: str
    figure: Figure
    caption: str = ""
    command: str = ""


def write_gallery(
    sheets: Sequence[Sheet],
    directory: Path,
    *,
    heading: str,
    facts: Mapping[str, Any] | None = None,
) -> Path:
    """Writes NAME.png and NAME.svg of every sheet, and ``index.html`` with all of them.

    All files are drawn before the first is written, and each is replaced whole. ``facts`` are shown
    in a table: the encoder, its weights, the data.

    Returns:
        The page.

    Raises:
        UserError: the disk is full or cannot be written.
    """
    drawings = [rendered(sheet) for sheet in sheets]
    page = (
        templates()
        .get_template("gallery.html")
        .render(
            heading=heading,
            facts=facts or {},
            sheets=list(zip(sheets, drawings, strict=True)),
            largest_svg=LARGEST_SVG,
        )
    )
    with disk_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
    for drawing in drawings:
        write_atomic(directory / f"{drawing.name}.png", drawing.png)
        write_atomic(directory / f"{drawing.name}.svg", drawing.svg)
    write_atomic(directory / PAGE, page)
    return directory / PAGE


def track_gallery(
    page: Path,
    sheets: Sequence[Sheet],
    mode: TrackMode,
    *,
    project: str,
    options: Mapping[str, Any],
) -> None:
    """Logs the pictures of :func:`write_gallery` and the page itself to Weights & Biases.

    ``options`` are the configuration. If W&B fails, there is one line of warning.
    """

    def shown() -> dict[str, Any]:
        import wandb

        images: dict[str, Any] = {
            f"pictures/{sheet.name}": wandb.Image(
                str(page.parent / f"{sheet.name}.png"), caption=sheet.title
            )
            for sheet in sheets
        }
        return {**images, "pictures/page": wandb.Html(page.read_text(), inject=False)}

    card = RunCard(options, "pictures", tags=["pictures"])
    track_page(page, shown, mode, card, project=project, name=page.parent.resolve().name)


def rendered(sheet: Sheet) -> Drawing:
    """The content of the files of a sheet, with its title."""
    with styled():
        sheet.figure.suptitle(sheet.title, x=0.01, ha="left", weight="bold")
        return finish(sheet.figure, sheet.name, sheet.title, sheet.caption or sheet.title)


# -- what several pictures use ---------------------------------------------------------------------


def new_sheet(width: float, height: float) -> Figure:
    """An empty figure; ``width`` and ``height`` in inches."""
    # pyplot keeps every figure and may need a display.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def draw_image(axes: Axes, image: torch.Tensor, title: str = "", **frame: Any) -> None:
    """Draws an image, uint8 (channels, height, width), without axes.

    Of other than 1 or 3 channels only the last is drawn, the newest frame of a stack. ``frame`` are
    options of the line around it, such as its ``color``.
    """
    pixels = image if len(image) in (1, 3) else image[-1:]
    axes.imshow(
        np.ascontiguousarray(pixels.permute(1, 2, 0).expand(-1, -1, 3)), interpolation="nearest"
    )
    bare(axes, title)
    if frame:
        axes.spines[:].set(visible=True, **frame)


def bare(axes: Axes, title: str = "") -> None:
    """Removes the axis lines, ticks and grid; ``title`` stands above."""
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.set_title(title, fontsize="x-small", weight="normal", loc="center")
