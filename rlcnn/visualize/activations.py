"""Feature maps of an image, and the patches of images that excite a channel most.

As in figure 2 of Zeiler & Fergus 2013, "Visualizing and understanding convolutional networks".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from rlcnn.report.style import number
from rlcnn.visualize.receptive_field import ReceptiveField
from rlcnn.visualize.sheets import bare, draw_image, new_sheet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Maps = Callable[[torch.Tensor], torch.Tensor]
"""uint8 images (batch, channels, height, width) -> feature maps (batch, channels, rows, columns)"""


def strongest_channels(maps: torch.Tensor, count: int) -> list[int]:
    """The channels of maps (channels, rows, columns) of largest mean, the largest first."""
    return maps.mean(dim=(1, 2)).topk(min(count, len(maps))).indices.tolist()


def draw_maps(image: torch.Tensor, maps: torch.Tensor, channels: Sequence[int]) -> Figure:
    """An image, uint8 (channels, height, width), and some of its maps, with a common scale.

    ``maps`` are float (channels, rows, columns).
    """
    columns = min(6, len(channels) + 1)
    rows = math.ceil((len(channels) + 1) / columns)
    figure = new_sheet(1.45 * columns + 0.9, 1.65 * rows + 0.5)
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    draw_image(panels[0], image, "image")
    shown = maps[list(channels)].float()
    scale: dict[str, Any] = {"vmin": min(0.0, shown.min().item()), "vmax": shown.max().item()}
    for axes, channel, one in zip(panels[1:], channels, shown, strict=False):
        drawn = axes.imshow(one, cmap="viridis", interpolation="nearest", **scale)
        bare(axes, f"channel {channel}")
    for axes in panels[len(channels) + 1 :]:
        axes.set_axis_off()
    figure.colorbar(drawn, ax=panels, label="activation", shrink=0.8)
    return figure


@dataclass(frozen=True)
class Patch:
    """What excites a channel: ``pixels`` of an image (``index``) around the largest activation."""

    index: int
    activation: float
    pixels: torch.Tensor


def strongest_patches(
    maps: Maps,
    batches: Iterable[torch.Tensor],
    channels: Sequence[int],
    field: ReceptiveField | None,
    shown: Callable[[torch.Tensor], torch.Tensor] = lambda images: images,
    count: int = 9,
) -> list[list[Patch]]:
    """For each channel the images with the largest activations, cropped to the receptive field.

    An image gives one patch, at its largest activation. Beyond the image a patch is grey.

    Args:
        maps: computes the feature maps.
        batches: the images, uint8 (batch, channels, height, width).
        channels: the channels to look at.
        field: receptive field of a value of the maps; None for whole images.
        shown: images -> the pixels that ``field`` counts, and patches are cut from.
        count: patches of a channel.
    """
    found: list[list[Patch]] = [[] for _ in channels]
    begin = 0
    for images in batches:
        values = maps(images)[:, list(channels)]
        columns = values.shape[-1]
        largest, places = values.flatten(2).max(dim=2)
        for place, patches in enumerate(found):
            # No more than this many images of a batch can be among the strongest.
            for row in largest[:, place].topk(min(count, len(images))).indices.tolist():
                activation = largest[row, place].item()
                if len(patches) == count and activation <= patches[-1].activation:
                    break
                position = divmod(int(places[row, place]), columns)
                pixels = cut_patch(shown(images[row][None])[0], field, position)
                patches.append(Patch(begin + row, activation, pixels))
                patches.sort(key=lambda patch: -patch.activation)
                del patches[count:]
        begin += len(images)
    return found


def cut_patch(
    image: torch.Tensor, field: ReceptiveField | None, position: tuple[int, int]
) -> torch.Tensor:
    """The pixels that the value at ``position`` (row, column) of the maps depends on.

    uint8 (channels, height, width) in and out; a field beyond the image is filled with grey, and
    cut to the image's size.
    """
    if field is None:
        return image
    top, left, height, width = field.box(*position)
    size = image.shape[1:]
    if height >= size[0] and width >= size[1]:
        return image
    patch = torch.full((len(image), height, width), 128, dtype=image.dtype)
    rows = slice(max(0, top), min(size[0], top + height))
    columns = slice(max(0, left), min(size[1], left + width))
    part = image[:, rows, columns]
    down, right = rows.start - top, columns.start - left
    patch[:, down : down + part.shape[1], right : right + part.shape[2]] = part
    return patch


def draw_patches(patches: Sequence[Sequence[Patch]], channels: Sequence[int]) -> Figure:
    """Squares of patches, one square for each channel, the strongest at the upper left."""
    side = math.ceil(math.sqrt(max(map(len, patches))))
    columns = min(3, len(channels))
    rows = math.ceil(len(channels) / columns)
    figure = new_sheet(2.6 * columns, 2.85 * rows + 0.3)
    for part, channel, own in zip(
        figure.subfigures(rows, columns, squeeze=False).flat, channels, patches, strict=False
    ):
        strengths = " to ".join(number(patch.activation) for patch in (own[0], own[-1]))
        part.suptitle(f"channel {channel}: {strengths}", fontsize="small")
        panels = list(part.subplots(side, side, squeeze=False).flat)
        for axes, patch in zip(panels, own, strict=False):
            draw_image(axes, patch.pixels)
        for axes in panels[len(own) :]:
            axes.set_axis_off()
    return figure
