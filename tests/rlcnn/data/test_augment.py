"""What is done to images before they are learned from."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from support.picture_files import pictures, refused, write_folder

from rlcnn.data.augment import Augmentation, bring_to_size
from rlcnn.data.augment_options import AugmentConfig
from rlcnn.data.images import ImageFiles, StoredImages, Task


def numbered(count: int = 64, height: int = 6, width: int = 5) -> StoredImages:
    """Images all of whose pixels differ: each says where it came from."""
    pixels = torch.arange(1, 2 * height * width + 1, dtype=torch.uint8).view(1, 2, height, width)
    task = Task("class", ("a", "b"))
    return StoredImages(pixels.repeat(count, 1, 1, 1), torch.zeros(count), [task])


def augmented(images: StoredImages, seed: int = 0, **options: Any) -> torch.Tensor:
    return apply(Augmentation(AugmentConfig(**options), images), images, seed)


def apply(augmentation: Augmentation, images: StoredImages, seed: int) -> torch.Tensor:
    height, width = images.images.shape[2:]
    random = torch.Generator().manual_seed(seed)
    return augmentation.apply(
        images.images, augmentation.draw(len(images), (height, width), random)
    )


def test_nothing_is_done_unless_it_is_asked_for() -> None:
    images = numbered()
    assert torch.equal(augmented(images), images.images)
    one_by_one = Augmentation(AugmentConfig(), images)
    assert torch.equal(one_by_one.image(images[0], 1), images[0])
    assert torch.equal(one_by_one.held_out(images.images), images.images)


def test_half_of_the_images_are_mirrored() -> None:
    images = numbered(400)
    flipped = augmented(images, flip=True)
    mirrored = [torch.equal(image, images[0].flip(2)) for image in flipped]
    assert all(
        m or torch.equal(image, images[0]) for m, image in zip(mirrored, flipped, strict=True)
    )
    # Of 400 throws of a coin: five deviations of 10 on either side.
    assert 150 < sum(mirrored) < 250


@pytest.mark.parametrize("edge", ["mean", "reflect", "repeat"])
def test_crops_are_windows_of_the_padded_image(edge: Any) -> None:
    images = numbered(200)
    crops = augmented(images, crop=5, crop_padding=2, edge=edge)
    assert crops.shape == (200, 2, 5, 5)
    mode = {"mean": "constant", "reflect": "reflect", "repeat": "replicate"}[edge]
    padded = torch.nn.functional.pad(images.images[:1].float(), [2] * 4, mode=mode)[0]
    if edge == "mean":
        mean = images.images[0].double().mean(dim=(1, 2)).round().float()
        inside = torch.zeros(10, 9, dtype=torch.bool)
        inside[2:8, 2:7] = True
        padded = torch.where(inside, padded, mean[:, None, None])
    windows = {
        (top, left): padded[:, top : top + 5, left : left + 5].byte()
        for top in range(6)
        for left in range(5)
    }
    found = set()
    for crop in crops:
        places = [place for place, window in windows.items() if torch.equal(window, crop)]
        assert places
        found |= set(places)
    assert {top for top, _ in found} == set(range(6))
    assert {left for _, left in found} == set(range(5))


def test_cutout_replaces_one_square_by_the_mean_colour() -> None:
    images = pictures(40)
    cut = augmented(images, cutout=6)
    mean = Augmentation(AugmentConfig(), images)._mean
    sizes = []
    for before, after in zip(images.images, cut, strict=True):
        changed = (before != after).any(dim=0)
        assert (after[:, changed] == mean[:, :, 0]).all()
        rows, columns = changed.any(dim=1).nonzero(), changed.any(dim=0).nonzero()
        sizes += [int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1]
    # At the border a part of the square lies outside.
    assert max(sizes) == 6
    assert min(sizes) < 6


def test_scale_jitter_resizes_before_the_crop() -> None:
    images = numbered(1, 32, 32)
    images.images[:] = 0
    images.images[:, :, 12:20, 12:20] = 255
    augmentation = Augmentation(AugmentConfig(crop=32, scale_from=1.5, scale_to=2.5), images)
    assert not augmentation.batched
    areas = []
    for seed in range(20):
        image = augmentation.image(images[0], seed)
        assert image.shape == (2, 32, 32)
        areas.append(int((image[0] > 127).sum()))
    # A square of 8 becomes one of 12 to 20.
    assert max(areas) <= 20**2
    assert max(areas) > 15**2
    shrinking = AugmentConfig(crop=32, scale_from=0.4, scale_to=0.5)
    assert Augmentation(shrinking, images).image(images[0], 0).shape == (2, 32, 32)


@pytest.mark.parametrize("channels", [1, 3])
def test_trivial_augment_changes_images_and_leaves_the_global_generators(
    channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def seeded(seed: int) -> None:
        raise AssertionError("a GPU's generator was seeded")

    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded)
    images = pictures(2, channels=channels)
    augmentation = Augmentation(AugmentConfig(trivial=True), images)
    before = torch.get_rng_state()
    changed = [augmentation.image(images[0], seed) for seed in range(12)]
    assert torch.equal(torch.get_rng_state(), before)
    assert all(image.shape == images[0].shape and image.dtype == torch.uint8 for image in changed)
    assert len({str(image.tolist()) for image in changed}) > 4
    with refused("--augment.trivial", "1 or 3 channels, not 2"):
        Augmentation(AugmentConfig(trivial=True), numbered())


@pytest.mark.parametrize(
    "options",
    [
        {"crop": 12, "crop_padding": 2, "flip": True, "cutout": 4},
        {"trivial": True, "flip": True, "scale_from": 0.8, "scale_to": 1.2, "cutout": 4},
    ],
)
def test_what_is_drawn_follows_from_the_seed(options: dict[str, Any]) -> None:
    images = pictures(4)
    augmentation = Augmentation(AugmentConfig(**options), images)

    def draw(seed: int) -> torch.Tensor:
        if augmentation.batched:
            return apply(augmentation, images, seed)
        return torch.stack([augmentation.image(image, seed) for image in images.images])

    first = draw(1)
    torch.rand(3)
    assert torch.equal(draw(1), first)
    assert not torch.equal(draw(2), first)


def test_images_are_resized_and_padded_before_anything_else() -> None:
    images = pictures(1)
    larger = bring_to_size(images, AugmentConfig(resize=32, pad=2))
    assert larger.image_shape == (3, 36, 36)
    assert not larger[0][:, :2].any()
    assert not larger[0][:, :, -2:].any()
    padded = bring_to_size(images, AugmentConfig(pad=2))
    assert torch.equal(padded[0][:, 2:-2, 2:-2], images[0])
    assert bring_to_size(images, AugmentConfig(crop=8)) is images


def test_held_out_images_are_centre_crops() -> None:
    images = numbered(3)
    augmentation = Augmentation(AugmentConfig(crop=3), images)
    assert torch.equal(augmentation.held_out(images.images), images.images[:, :, 1:4, 1:4])
    # Held-out images may be smaller than the crop: black around them.
    small = augmentation.held_out(images.images[:, :, :1, :2])
    assert small.shape == (3, 2, 3, 3)
    assert torch.equal(small[:, :, 1, 1:], images.images[:, :, 0, :2])
    assert int((small > 0).sum()) == 3 * 2 * 2


def test_a_crop_larger_than_the_images_is_refused() -> None:
    with refused("--augment.crop 12", "6x5 pixels", "--augment.crop-padding 2"):
        Augmentation(AugmentConfig(crop=12, crop_padding=2), numbered())


def test_files_of_many_sizes_need_a_crop(tmp_path: Path) -> None:
    write_folder(tmp_path, pictures(1))
    files = ImageFiles(sorted(tmp_path.rglob("*.png")), torch.zeros(6), [Task("class", ("a", "b"))])
    with refused("differ in size", "--augment.crop"):
        bring_to_size(files, AugmentConfig())
    sized = bring_to_size(files, AugmentConfig(crop=14))
    assert sized[0].shape == (3, 16, 16)
    config = AugmentConfig(crop=14, flip=True)
    augmentation = Augmentation(config, sized)
    assert augmentation.image(sized[0], 0).shape == augmentation.output_shape == (3, 14, 14)
    resized = bring_to_size(files, dataclasses.replace(config, resize=20))
    assert resized[0].shape == (3, 20, 20)
