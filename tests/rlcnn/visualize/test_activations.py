"""The strongest channels and the patches that excite them, on images whose answer is known."""

from __future__ import annotations

import torch

from rlcnn.visualize.activations import (
    cut_patch,
    draw_maps,
    draw_patches,
    strongest_channels,
    strongest_patches,
)
from rlcnn.visualize.receptive_field import ReceptiveField, Window

# Maps of 4x4 values, each the mean of 3x3 pixels, two apart, beginning one pixel outside.
FIELD = ReceptiveField(Window(3, 2, -1), Window(3, 2, -1))


def maps(images: torch.Tensor) -> torch.Tensor:
    """The mean of 3x3 pixels, and its negative."""
    mean = torch.nn.functional.avg_pool2d(images[:, -1:].float(), 3, stride=2, padding=1)
    return torch.cat((mean, -mean), dim=1)


def test_patches_come_from_the_images_and_places_of_largest_activation() -> None:
    images = torch.zeros(6, 1, 8, 8, dtype=torch.uint8)
    for index, value in enumerate((10, 60, 20, 50, 30, 40)):
        images[index, 0, 4, 2] = value
    found = strongest_patches(maps, images.split(4), [0, 1], FIELD, count=3)
    assert [patch.index for patch in found[0]] == [1, 3, 5]
    assert [round(9 * patch.activation) for patch in found[0]] == [60, 50, 40]
    for patch in found[0]:
        # Around (4, 2): rows 3 to 5 and columns 1 to 3.
        assert torch.equal(patch.pixels, images[patch.index, :, 3:6, 1:4])
    # The negative is largest where there is nothing.
    assert all(patch.activation == 0 for patch in found[1])
    figure = draw_patches(found, [0, 1])
    titles = [part.get_suptitle() for part in figure.subfigs]
    assert titles == ["channel 0: 6.67 to 4.44", "channel 1: 0.00 to 0.00"]


def test_a_patch_beyond_the_image_is_grey_there() -> None:
    image = torch.arange(64, dtype=torch.uint8).view(1, 8, 8)
    patch = cut_patch(image, FIELD, (0, 3))
    assert patch.shape == (1, 3, 3)
    assert patch[0, 0].tolist() == [128, 128, 128]
    assert patch[0, 1:].tolist() == [[5, 6, 7], [13, 14, 15]]


def test_fields_of_the_whole_image_show_it_whole() -> None:
    image = torch.arange(64, dtype=torch.uint8).view(1, 8, 8)
    assert torch.equal(cut_patch(image, None, (0, 0)), image)
    large = ReceptiveField(Window(20, 2, -6), Window(20, 2, -6))
    assert torch.equal(cut_patch(image, large, (1, 1)), image)


def test_the_strongest_channels_have_the_largest_mean_and_a_common_scale() -> None:
    found = torch.tensor([1.0, 5.0, 3.0]).view(3, 1, 1).expand(3, 2, 2)
    assert strongest_channels(found, 2) == [1, 2]
    figure = draw_maps(torch.zeros(4, 6, 6, dtype=torch.uint8), found, [1, 2])
    limits = {image.get_clim() for axes in figure.axes[1:3] for image in axes.images}
    assert limits == {(0.0, 5.0)}
    assert [axes.get_title() for axes in figure.axes[:3]] == ["image", "channel 1", "channel 2"]
