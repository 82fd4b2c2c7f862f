"""The filters of the first convolution, as in figure 3 of Krizhevsky et al. 2012."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import nn

from envs.errors import UserError
from rlcnn.encoders import Encoder
from rlcnn.report.style import number
from rlcnn.visualize.sheets import bare, new_sheet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_GAP = 1  # pixels between two frames or filters; twice as many between stacks of frames
_GROUND = "#c6dbef"  # between grey filters, where white and black are weights


def first_filters(encoder: Encoder, frame_channels: int) -> torch.Tensor:
    """Weights of the first convolution, float32 (filters, frames, channels, height, width).

    ``frame_channels`` are those of a frame, 3 for RGB; filters over other numbers of channels are
    taken for filters over grey frames.

    Raises:
        UserError: the encoder has no convolution.
    """
    convolutions = (module for module in encoder.trunk.modules() if isinstance(module, nn.Conv2d))
    first = next(convolutions, None)
    if first is None:
        raise UserError(f'encoder "{encoder.name}" has no convolution, so no filters to draw')
    weight = first.weight.detach().float().cpu()
    # An encoder may repeat grey frames over the channels of RGB images.
    channels = 3 if frame_channels == 3 or weight.shape[1] == 3 else 1
    channels = channels if weight.shape[1] % channels == 0 else 1
    return weight.unflatten(1, (-1, channels))


def normalised(filters: torch.Tensor) -> torch.Tensor:
    """Each filter divided by its largest absolute weight: from -1 to 1, and 0 stays 0.

    (filters, ...) -> the same shape; a filter of zeros stays as it is.
    """
    largest = filters.abs().flatten(1).amax(dim=1).clamp(min=torch.finfo(filters.dtype).tiny)
    return filters / largest.view(-1, *[1] * (filters.ndim - 1))


def draw_filters(networks: Mapping[str, torch.Tensor]) -> Figure:
    """The filters of one or more networks beside each other, by the networks' names.

    Filters are (filters, frames, channels, height, width), equal shapes for all networks. Each is
    :func:`normalised`; RGB filters are drawn in colour, where grey stands for 0. The frames of a
    stack are a row, the oldest at the left.
    """
    from matplotlib import colormaps

    filters = next(iter(networks.values()))
    count, frames, channels, height, width = filters.shape
    high, wide = _cell(filters)
    # About square.
    columns = max(1, min(count, round(math.sqrt(count * high / wide))))
    rows = math.ceil(count / columns)
    side = 4.4
    tall = side * rows * high / (columns * wide)
    # Filters without colours have a colour bar.
    figure = new_sheet(side * len(networks) + 0.3, tall + (1.6 if channels == 1 else 1.0))
    panels = figure.subplots(1, len(networks), squeeze=False, gridspec_kw={"wspace": 0.08})[0]
    grey = colormaps["gray"].with_extremes(bad=_GROUND)
    for axes, (name, weights) in zip(panels, networks.items(), strict=True):
        mosaic = _mosaic(normalised(weights), rows, columns)
        colours = mosaic[..., 0] if channels == 1 else ((mosaic + 1) / 2).nan_to_num(1.0)
        drawn = axes.imshow(colours, cmap=grey, vmin=-1, vmax=1, interpolation="nearest")
        largest = weights.abs().flatten(1).amax(dim=1)
        ends = [number(float(end)) for end in (largest.min(), largest.max())]
        bare(axes, f"{name}\nlargest weight of a filter: {ends[0]} to {ends[1]}")
        if frames > 1:
            axes.set_xlabel(f"{columns} filters in a row, each of {frames} frames, oldest first")
        else:
            axes.set_xlabel(f"{count} filters of {height}x{width}")
    if channels == 1:
        label = "weight / largest absolute weight of the filter"
        figure.colorbar(drawn, ax=panels, location="bottom", label=label, aspect=40, shrink=0.6)
    return figure


def _cell(filters: torch.Tensor) -> tuple[int, int]:
    """Height and width of a filter's frames in a row, with the space below and beside."""
    _, frames, _, height, width = filters.shape
    more = _GAP * (frames > 1)
    return height + _GAP + more, frames * (width + _GAP) + more


def _mosaic(filters: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """The frames of each filter in a row, (height, width, channels); NaN between them."""
    count, frames, channels, height, width = filters.shape
    cells = torch.full((rows * columns, *_cell(filters), channels), torch.nan)
    for frame in range(frames):
        left = frame * (width + _GAP)
        cells[:count, :height, left : left + width] = filters[:, frame].movedim(1, -1)
    return cells.unflatten(0, (rows, columns)).transpose(1, 2).flatten(2, 3).flatten(0, 1)
