"""What a network sees of an image, against torchvision's own transforms and the paper's words."""

from __future__ import annotations

import pytest
import torch
from torchvision import models

from envs.errors import UserError
from rlcnn.data.crops import CropTransform
from rlcnn.encoders.architectures import find_architecture


def noise(height: int, width: int, channels: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (channels, height, width), generator=generator, dtype=torch.uint8)


# Bilinear and bicubic; a greater resize than crop, and an equal one.
@pytest.mark.parametrize("name", ["squeezenet1_0", "efficientnet_b0", "efficientnet_b2"])
def test_the_middle_is_what_the_weights_were_published_with(name: str) -> None:
    architecture = find_architecture(name)
    assert architecture is not None
    crop, resize = architecture.crop, architecture.resize
    transform = CropTransform(crop, crop, resize, interpolation=architecture.interpolation)
    image = noise(340, 301)
    transforms = models.get_model_weights(name).DEFAULT.transforms()
    mean, std = (torch.tensor(x)[:, None, None] for x in (transforms.mean, transforms.std))
    expected = ((transforms(image) * std + mean) * 255).round().to(torch.uint8)
    assert torch.equal(transform.centre(image), expected[None])


def test_ten_crops_are_corners_and_centre_and_their_mirror_images() -> None:
    image = noise(256, 256)
    crops = CropTransform(224, 224, 256).ten(image)
    # Left and right change places in the mirror.
    places = {(0, 0): (0, 6), (0, 32): (1, 5), (32, 0): (2, 8), (32, 32): (3, 7), (16, 16): (4, 9)}
    for (top, left), (number, mirrored) in places.items():
        expected = image[:, top : top + 224, left : left + 224]
        assert torch.equal(crops[number], expected)
        assert torch.equal(crops[mirrored], expected.flip(-1))


def test_ten_crops_come_out_of_the_middle_square() -> None:
    wide = noise(64, 100)
    crops = CropTransform(56, 56, 64).ten(wide)
    assert torch.equal(crops, CropTransform(56, 56, 64).ten(wide[:, :, 18:82]))


def test_an_image_of_the_networks_size_stays_as_it_is() -> None:
    image = noise(28, 28, channels=1)
    assert torch.equal(CropTransform(28, 28).centre(image), image[None])
    # Ten crops need room: 28 of 32, as 224 of 256.
    assert CropTransform(28, 28).ten(image).shape == (10, 1, 28, 28)


def test_other_sizes_are_brought_to_eight_sevenths_of_the_crop() -> None:
    image = noise(90, 60)
    assert torch.equal(CropTransform(56, 56).centre(image), CropTransform(56, 56, 64).centre(image))
    assert CropTransform(30, 50).centre(image).shape == (1, 3, 30, 50)


def test_images_are_padded_or_left_where_a_training_did_so() -> None:
    image = noise(28, 28, channels=1)
    padded = CropTransform(32, 32, resize=0, pad=2).centre(image)[0]
    assert torch.equal(padded[:, 2:-2, 2:-2], image)
    assert int(padded.sum()) == int(image.sum())
    assert torch.equal(CropTransform(24, 24, resize=0).centre(image)[0], image[:, 2:-2, 2:-2])


def test_what_leaves_no_room_is_refused() -> None:
    with pytest.raises(UserError, match="200 pixels hold no crop of 224"):
        CropTransform(224, 224, 200)
    with pytest.raises(UserError, match="ten crops of 224x224 pixels need a larger image"):
        CropTransform(224, 224, 224).ten(noise(300, 300))
    with pytest.raises(UserError, match="--crops 5 must be 1 or 10"):
        CropTransform(224, 224).crops(noise(300, 300), 5)
