"""Minibatches: every image once an epoch, in an order and with changes that a seed decides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.picture_files import pictures, refused, write_folder

from rlcnn.data.augment import Augmentation
from rlcnn.data.augment_options import AugmentConfig
from rlcnn.data.batches import Batch, Batches, derive_seed
from rlcnn.data.folders import load_folder
from rlcnn.data.images import ImageFiles, LabelledImages, StackedFrames, StoredImages, Task

CPU = torch.device("cpu")


def batches(images: LabelledImages, *, seed: int = 0, workers: int = 0, **options: Any) -> Batches:
    augmentation = Augmentation(AugmentConfig(**options), images)
    return Batches(images, augmentation, batch_size=7, seed=seed, device=CPU, workers=workers)


def same(one: list[Batch], other: list[Batch]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels)
        for a, b in zip(one, other, strict=True)
    )


# The two ways there are: whole batches, and images one by one.
WAYS = [{"flip": True, "crop": 12, "crop_padding": 1}, {"trivial": True}]


@pytest.mark.parametrize("options", WAYS)
def test_an_epoch_goes_on_in_its_middle_as_if_it_had_not_stopped(options: dict[str, Any]) -> None:
    source = batches(pictures(4), **options)
    epoch = list(source.epoch(3))
    torch.rand(5)
    assert same(list(source.epoch(3, start=2)), epoch[2:])
    assert list(source.epoch(3, start=len(epoch))) == []
    assert not same(list(source.epoch(4)), epoch)
    assert not same(list(batches(pictures(4), seed=1, **options).epoch(3)), epoch)


@pytest.mark.parametrize("options", WAYS)
def test_batches_are_what_the_plain_computation_gives(options: dict[str, Any]) -> None:
    images = pictures(4)
    source = batches(images, seed=3, **options)
    augmentation = Augmentation(AugmentConfig(**options), images)
    random = torch.Generator().manual_seed(derive_seed(3, 0, 2))
    order = torch.randperm(24, generator=random)
    epoch = list(source.epoch(2))
    for place, (rows, batch) in enumerate(zip(order.split(7), epoch, strict=True)):
        assert torch.equal(batch.labels, images.labels[rows])
        if augmentation.batched:
            random = torch.Generator().manual_seed(derive_seed(3, 1, 2, place))
            drawn = augmentation.draw(len(rows), (16, 16), random)
            expected = augmentation.apply(images.images[rows], drawn)
        else:
            seeds = [derive_seed(3, 1, 2, int(row)) for row in rows]
            pairs = zip(images.images[rows], seeds, strict=True)
            expected = torch.stack([augmentation.image(image, seed) for image, seed in pairs])
        assert torch.equal(batch.images, expected)


def test_images_stored_on_a_device_are_the_same() -> None:
    images = pictures(3)
    frames = StackedFrames(
        torch.arange(40, dtype=torch.uint8).view(10, 1, 2, 2),
        torch.tensor([[0, 7], [7, 9], [0, 0]]),
        torch.tensor([0, 1, 0]),
        [Task("class", ("a", "b"))],
        {},
    )
    rows = torch.tensor([2, 0, 1])
    needed: dict[LabelledImages, int] = {images: images.images.nbytes, frames: 3 * 4 + 6 * 8}
    for source, most in needed.items():
        stored = source.stored_on(CPU, most)
        assert stored is not None
        assert torch.equal(stored.gather(rows), source.gather(rows))
        assert source.stored_on(CPU, most - 1) is None
    # Of the frames, those of its own stacks.
    stored = frames.stored_on(CPU, 10**6)
    assert stored is not None
    assert len(stored.frames) == 3
    assert len(frames.frames) == 10


def test_every_image_is_seen_once_an_epoch() -> None:
    images = pictures(5)
    source = batches(images)
    orders = []
    for number in range(2):
        epoch = list(source.epoch(number))
        assert len(epoch) == source.per_epoch == 5
        assert [len(batch.images) for batch in epoch] == [7, 7, 7, 7, 2]
        seen = torch.cat([batch.images for batch in epoch])
        labels = torch.cat([batch.labels for batch in epoch])
        places = [int((images.images == image).flatten(1).all(dim=1).nonzero()) for image in seen]
        assert sorted(places) == list(range(30))
        assert torch.equal(labels, images.labels[places])
        orders.append(places)
    assert orders[0] != orders[1]


def test_a_single_image_is_no_batch() -> None:
    images = pictures(4)
    most = StoredImages(images.images[:15], images.labels[:15], images.tasks)
    source = batches(most)
    assert [len(batch.images) for batch in source.epoch(0)] == [7, 7]
    assert source.per_epoch == 2
    assert sum(len(batch.images) for batch in source.held_out()) == 15
    with refused("one image is too few"):
        batches(StoredImages(images.images[:1], images.labels[:1], images.tasks))


def test_held_out_images_come_in_their_own_order_unchanged() -> None:
    images = pictures(3)
    held_out = torch.cat([batch.images for batch in batches(images, flip=True).held_out()])
    assert torch.equal(held_out, images.images)


def test_files_are_seen_as_images_in_memory_are(tmp_path: Path) -> None:
    write_folder(tmp_path, pictures(6))
    stored = load_folder(tmp_path, seed=0).train
    paths = [p for name in stored.tasks[0].classes for p in sorted((tmp_path / name).iterdir())]
    assert isinstance(stored, StoredImages)

    labels = torch.arange(6).repeat_interleave(6)
    files = ImageFiles(paths, labels, stored.tasks, resize=16)
    whole = StoredImages(files.gather(torch.arange(36)), labels, stored.tasks)
    options = {"crop": 16, "trivial": True}
    epoch = list(batches(files, **options).epoch(0))
    assert same(epoch, list(batches(whole, **options).epoch(0)))


@pytest.mark.slow
def test_processes_that_help_change_nothing(tmp_path: Path) -> None:
    images = pictures(4)
    alone = list(batches(images, trivial=True).epoch(0))
    assert same(list(batches(images, trivial=True, workers=2).epoch(0)), alone)


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_damaged_file_gives_one_line(workers: int, tmp_path: Path) -> None:
    write_folder(tmp_path, pictures(2))
    paths = sorted(tmp_path.rglob("*.png"))
    files = ImageFiles(paths, torch.zeros(12), [Task("class", ("a", "b"))], resize=16)
    source = batches(files, crop=16, workers=workers)
    paths[5].write_bytes(paths[5].read_bytes()[:60])
    with refused(str(paths[5])):
        list(source.epoch(0))
