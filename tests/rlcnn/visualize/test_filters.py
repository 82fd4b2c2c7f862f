"""First filters: their shape by frame and channel, their scale, and where they are drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from envs.errors import UserError
from rlcnn.encoders import create_encoder
from rlcnn.visualize.filters import draw_filters, first_filters, normalised


@pytest.mark.parametrize(
    ("name", "shape", "options", "frame_channels", "filters"),
    [
        ("nature", (4, 84, 84), {}, 1, (32, 4, 1, 8, 8)),
        ("nature", (6, 84, 84), {}, 3, (32, 2, 3, 8, 8)),
        # Grey frames are repeated over the channels of RGB filters.
        ("squeezenet1_0", (4, 64, 64), {"frame_channels": 1}, 1, (96, 1, 3, 7, 7)),
        ("squeezenet1_0", (6, 64, 64), {"stacking": "inflated"}, 3, (96, 2, 3, 7, 7)),
    ],
)
def test_filters_are_split_by_frame_and_channel(
    name: str, shape: tuple[int, int, int], options: dict, frame_channels: int, filters: tuple
) -> None:
    encoder = create_encoder(name, shape, **options)
    found = first_filters(encoder, frame_channels)
    assert found.shape == filters
    weight = next(m for m in encoder.trunk.modules() if isinstance(m, nn.Conv2d)).weight
    assert torch.equal(found.flatten(1, 2), weight)


def test_each_filter_is_divided_by_its_largest_weight() -> None:
    filters = torch.tensor([[2.0, -4.0], [0.5, 0.25], [0.0, 0.0]]).view(3, 1, 1, 1, 2)
    assert normalised(filters).flatten(1).tolist() == [[0.5, -1.0], [1.0, 0.5], [0.0, 0.0]]


def test_filters_are_drawn_row_by_row_with_their_frames_side_by_side() -> None:
    filters = torch.zeros(5, 2, 1, 2, 2)
    filters[:, 0, 0, 0, 0] = 1.0
    filters[1, 1, 0, 1, 1] = -2.0
    figure = draw_filters({"trained": filters, "untrained": filters})
    left, right, _ = figure.axes
    assert left.get_title().startswith("trained")
    assert right.get_title().startswith("untrained")
    drawn = np.ma.filled(left.images[0].get_array(), np.nan)
    # Two filters in a row, each 2 frames of 2 pixels: 7 wide and 4 high with the ground between.
    assert drawn.shape == (12, 14)
    assert drawn[0, [0, 3, 7]].tolist() == [1.0, 0.0, 0.5]
    assert drawn[1, 11] == -1.0
    # Ground of another colour where there is no filter, and between frames.
    assert np.isnan(drawn[8:, 7:]).all()
    assert np.isnan(drawn[:, 2]).all()


def test_an_encoder_without_convolutions_is_refused() -> None:
    encoder = create_encoder("nature", (4, 84, 84))
    encoder.trunk = nn.Sequential(nn.Flatten())
    with pytest.raises(UserError, match='encoder "nature" has no convolution'):
        first_filters(encoder, 1)
