"""Labelled images: what they promise, and what is refused at the door."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.picture_files import pictures, refused, write_folder

from envs.errors import UserError
from rlcnn.data.decoding import read_image
from rlcnn.data.images import UNKNOWN, Episodes, ImageFiles, JoinedImages, Split, StoredImages, Task

TASK = Task("class", ("a", "b", "c"))


def blank(count: int) -> torch.Tensor:
    return torch.zeros(count, 1, 4, 4, dtype=torch.uint8)


@pytest.mark.parametrize("label", [-2, 3, 255])
def test_labels_beyond_the_classes_are_refused(label: int) -> None:
    with refused(f'image 1 has label {label} for "class"', "3 classes: expected 0 to 2"):
        StoredImages(blank(2), torch.tensor([0, label]), [TASK])


def test_an_unknown_class_is_no_mistake() -> None:
    images = StoredImages(blank(2), torch.tensor([UNKNOWN, 2]), [TASK])
    assert images.labels.tolist() == [[UNKNOWN], [2]]
    assert images.labels.dtype == torch.int64


@pytest.mark.parametrize("classes", [(), ("only",)])
def test_a_task_with_fewer_than_two_classes_is_refused(classes: tuple[str, ...]) -> None:
    with refused('"class" has', "needs 2", *classes):
        StoredImages(blank(1), torch.zeros(1), [Task("class", classes)])


def test_no_images_are_refused() -> None:
    with refused("there are no images"):
        StoredImages(blank(0), torch.zeros(0), [TASK])
    with refused("there are no images"):
        ImageFiles([], torch.zeros(0), [TASK])


def test_files_hold_what_memory_does(tmp_path: Path) -> None:
    stored = pictures(2)
    write_folder(tmp_path, stored)
    paths = sorted(tmp_path.rglob("*.png"), key=lambda path: path.name)
    files = ImageFiles(paths, stored.labels, stored.tasks)
    assert len(files) == len(stored)
    index = torch.tensor([3, 0, 7])
    assert torch.equal(files.gather(index), stored.gather(index))
    assert all(torch.equal(files[i], stored[i]) for i in range(len(stored)))
    assert (files.image_shape, stored.image_shape) == (None, (3, 16, 16))


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1", "CMYK", "I;16"])
def test_every_kind_of_image_becomes_rgb_or_grey(mode: str, tmp_path: Path) -> None:
    path = tmp_path / ("image.tif" if mode == "CMYK" else "image.png")
    Image.new(mode, (6, 4)).save(path)
    assert read_image(path).shape == (3, 4, 6)
    assert read_image(path, channels=1).shape == (1, 4, 6)


def test_the_shorter_side_is_resized(tmp_path: Path) -> None:
    Image.new("RGB", (30, 20), (10, 20, 30)).save(tmp_path / "image.png")
    image = read_image(tmp_path / "image.png", resize=10)
    assert image.shape == (3, 10, 15)
    assert image[:, 5, 5].tolist() == [10, 20, 30]


def test_damaged_images_are_named(tmp_path: Path) -> None:
    whole = tmp_path / "whole.jpg"
    Image.effect_noise((64, 64), 50).save(whole)
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(whole.read_bytes()[:-800])
    with refused(f'"{cut}" is truncated or damaged'):
        read_image(cut)
    text = tmp_path / "text.jpg"
    text.write_text("no image")
    with refused(f'"{text}" is not an image'):
        read_image(text)
    (tmp_path / "empty.png").touch()
    with refused("empty.png", "is empty, not an image"):
        read_image(tmp_path / "empty.png")
    with refused("cannot read", "gone.png", "No such file"):
        read_image(tmp_path / "gone.png")


def test_grey_images_of_16_bits_keep_their_upper_ones(tmp_path: Path) -> None:
    levels = np.arange(256, dtype=np.uint16).reshape(16, 16)
    path = tmp_path / "deep.png"
    Image.fromarray(256 * levels + 77).save(path)
    for channels in (1, 3):
        pixels = read_image(path, channels)
        assert pixels.shape == (channels, 16, 16)
        assert all(np.array_equal(channel, levels) for channel in pixels)


def test_images_of_32_bits_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "wide.tif"
    Image.fromarray(np.full((8, 8), 70_000, dtype=np.int32)).save(path)
    with pytest.raises(UserError, match=r'wide.tif" has pixels of 32 bits'):
        read_image(path)


def test_joined_images_are_those_learned_from_and_then_those_held_out() -> None:
    train, test = pictures(2), pictures(1, seed=1)
    joined = JoinedImages(Split(train, test))
    assert len(joined) == len(train) + len(test)
    assert torch.equal(joined.labels, torch.cat((train.labels, test.labels)))
    assert torch.equal(joined[len(train) - 1], train[len(train) - 1])
    assert torch.equal(joined[len(train)], test[0])
    assert joined.image_shape == train.image_shape
    assert joined.episodes is None
    for part in (train, test):
        part.episodes = Episodes(torch.zeros(len(part)), torch.arange(len(part)))
    joined = JoinedImages(Split(train, test))
    assert joined.episodes is not None
    # No game that was learned from is one that is held out.
    assert joined.episodes.ids.tolist() == list(range(len(joined)))
