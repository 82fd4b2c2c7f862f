"""Saliency drawn over the image that it explains."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np

from rlcnn.report.style import new_figure, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Brightness grows evenly along this scale, so that it survives print and colour blindness.
_COLOURS = cv2.COLORMAP_INFERNO
_DIMMED = 0.45  # brightness of the image under the colours

# Single pixels of gradients are hardly visible: the standard deviation of a Gaussian blur, as a
# share of the height.
_BLUR = 1 / 100

_CELL = 1.5  # inches of a sheet for one picture
_SCALE = 0.6  # inches for the colour scale
_LINE = 2  # pixels between the frames of a stack

# The strongest pixels of noisy maps, as gradients are, would hide all others.
_FULL_STRENGTH = 99.5  # percentile


def heat_over(image: np.ndarray, strength: np.ndarray, full: float | None = None) -> np.ndarray:
    """A dimmed image under the colours of a saliency map: black, purple, orange, yellow.

    Args:
        image: uint8 (height, width), or RGB (height, width, 3).
        strength: float32 (height, width), at least 0.
        full: strength of the brightest colour; by default this map's own 99.5th percentile.

    Returns:
        uint8 RGB (height, width, 3).
    """
    if image.ndim == 2:
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
    full = full_strength(strength) if full is None else full
    share = np.clip(strength / full, 0, 1) if full > 0 else np.zeros_like(strength)
    colours = cv2.applyColorMap(np.rint(share * 255).astype(np.uint8), _COLOURS)
    mixed = _DIMMED * (1 - share[..., None]) * image + share[..., None] * colours[..., ::-1]
    return np.rint(mixed).astype(np.uint8)


def full_strength(strength: np.ndarray) -> float:
    """The strength that gets the brightest colour: the 99.5th percentile, or else the most."""
    return float(np.percentile(strength, _FULL_STRENGTH)) or float(strength.max(initial=0))


def frames_of(images: np.ndarray, frames: int) -> np.ndarray:
    """Splits stacks (batch, frames * C, height, width) into (batch, frames, height, width, C).

    C is 3, or left out for one channel.
    """
    batch, _, height, width = images.shape
    split = images.reshape(batch, frames, -1, height, width)
    return split[:, :, 0] if split.shape[2] == 1 else split.transpose(0, 1, 3, 4, 2)


def saliency_figure(
    images: np.ndarray,
    maps: Mapping[str, np.ndarray],
    *,
    labels: Sequence[str] = (),
    title: str = "",
) -> Figure:
    """A sheet with a row per image: the image, and each map laid over it, slightly blurred.

    The frames of a stack stand in reading order. A map has one scale for all frames.

    Args:
        images: uint8 (n, frames * channels, height, width).
        maps: by their titles, strengths (n, frames, height, width) of
            :func:`rlcnn.visualize.saliency.strength`.
        labels: what each row shows, such as the explained class.
        title: of the sheet.
    """
    frames = next(iter(maps.values())).shape[1]
    columns = {"image" if frames == 1 else f"{frames} frames,\noldest first": None, **maps}
    with styled():
        figure = new_figure(0.6 + _SCALE + _CELL * len(images))
        figure.set_figwidth(0.5 + _CELL * len(columns))
        axes = figure.subplots(len(images), len(columns), squeeze=False)
        for row, stack in enumerate(frames_of(images, frames)):
            for column, (name, strengths) in enumerate(columns.items()):
                tiles = stack if strengths is None else _heated(stack, strengths[row])
                axis = axes[row, column]
                axis.imshow(_in_square(tiles), cmap="gray", vmin=0, vmax=255)
                axis.set(xticks=[], yticks=[])
                axis.grid(False)
                if row == 0:
                    axis.set_title(name, fontsize="small", loc="center")
                if column == 0 and labels:
                    axis.set_ylabel(labels[row], fontsize="x-small")
        _add_scale(figure, axes)
        if title:
            figure.suptitle(title)
    return figure


def strip_figure(images: np.ndarray, maps: np.ndarray, labels: Sequence[str]) -> Figure:
    """A strip of frames, and below each its map laid over it, slightly blurred.

    Args:
        images: uint8 (n, channels, height, width), of one frame each.
        maps: strengths (n, 1, height, width) of :func:`rlcnn.visualize.saliency.strength`.
        labels: of each frame.
    """
    with styled():
        figure = new_figure(2 * _CELL + 0.9 + _SCALE)
        figure.set_figwidth(0.3 + _CELL * len(images))
        axes = figure.subplots(2, len(images), squeeze=False)
        for column, (frame, label) in enumerate(zip(frames_of(images, 1), labels, strict=True)):
            for row, tiles in enumerate((frame, _heated(frame, maps[column]))):
                axis = axes[row, column]
                axis.imshow(tiles[0], cmap="gray", vmin=0, vmax=255)
                axis.set(xticks=[], yticks=[])
                axis.grid(False)
            axes[0, column].set_title(label, fontsize="small", weight="normal", loc="center")
        for row, name in enumerate(("newest frame", "gradient")):
            axes[row, 0].set_ylabel(name, fontsize="small")
        _add_scale(figure, axes)
    return figure


def _add_scale(figure: Figure, axes: np.ndarray) -> None:
    """The colours of maps, below all ``axes``."""
    from matplotlib.cm import ScalarMappable

    label = f"strength, divided by the map's {_FULL_STRENGTH}th percentile"
    scale = ScalarMappable(cmap="inferno")
    bar = figure.colorbar(scale, ax=axes, location="bottom", aspect=40, shrink=0.6)
    bar.set_label(label, fontsize="small")


def _heated(stack: np.ndarray, strengths: np.ndarray) -> np.ndarray:
    """The frames under their maps, on one scale."""
    blur = max(0.5, _BLUR * stack.shape[1])
    blurred = [cv2.GaussianBlur(one.astype(np.float32), (0, 0), blur) for one in strengths]
    full = full_strength(np.stack(blurred))
    return np.stack([heat_over(*pair, full) for pair in zip(stack, blurred, strict=True)])


def _in_square(tiles: np.ndarray) -> np.ndarray:
    """Frames in reading order, in rows of about as many as there are rows."""
    columns = math.ceil(math.sqrt(len(tiles)))
    height, width = tiles.shape[1:3]
    shape = (-(-len(tiles) // columns) * (height + _LINE), columns * (width + _LINE))
    canvas = np.full((*shape, *tiles.shape[3:]), 255, np.uint8)
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        y, x = row * (height + _LINE), column * (width + _LINE)
        canvas[y : y + height, x : x + width] = tile
    return canvas[:-_LINE, :-_LINE]
