"""Small random images, labelled ones too, in memory and on disk."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from envs.errors import UserError
from rlcnn.data.images import Split, StoredImages, Task

SIDE = 16
CLASSES = ("dark", "bright", "left", "right", "top", "bottom")


def images(*shape: int, seed: int = 0) -> torch.Tensor:
    """Random pixels, uint8 of this shape."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def draw(label: int, random: np.random.Generator, channels: int = 3) -> np.ndarray:
    """A noisy image of a class, uint8 (SIDE, SIDE, channels)."""
    image = random.integers(0, 60, (SIDE, SIDE, channels))
    bright = {1: np.s_[:], 2: np.s_[:, : SIDE // 2], 3: np.s_[:, SIDE // 2 :]}
    bright |= {4: np.s_[: SIDE // 2], 5: np.s_[SIDE // 2 :]}
    if label:
        image[bright[label]] += 150
    return image.astype(np.uint8)


def pictures(
    per_class: int, *, seed: int = 0, classes: int = len(CLASSES), channels: int = 3
) -> StoredImages:
    """``per_class`` images of each class, in memory."""
    random = np.random.default_rng(seed)
    labels = np.tile(np.arange(classes), per_class)
    images = np.stack([draw(label, random, channels) for label in labels])
    task = Task("class", CLASSES[:classes])
    return StoredImages(
        torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(labels), [task]
    )


def split(per_class: int = 8, *, channels: int = 3) -> Split:
    """Images to learn from, and half as many held out."""
    half = max(1, per_class // 2)
    return Split(pictures(per_class, channels=channels), pictures(half, seed=1, channels=channels))


def write_stripes(root: Path, **counts: int) -> Path:
    """Writes a folder of horizontal or vertical stripes, ``counts`` images of each class a part."""
    random = np.random.default_rng(0)
    for part, count in counts.items():
        for name, axis in (("across", 0), ("down", 1)):
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                wave = 80 * np.sin(np.arange(32) + random.uniform(0, 6))
                stripes = 128 + np.expand_dims(wave, 1 - axis) + random.normal(0, 10, (32, 32))
                pixels = Image.fromarray(stripes.clip(0, 255).astype(np.uint8))
                pixels.save(root / part / name / f"{name}-{number}.png")
    return root


def write_folder(directory: Path, images: StoredImages, suffix: str = ".png") -> None:
    """The images as ``<class>/<number>``."""
    names = images.tasks[0].classes
    for name in names:
        (directory / name).mkdir(parents=True, exist_ok=True)
    for number, (image, label) in enumerate(zip(images.images, images.labels[:, 0], strict=True)):
        pixels = image.permute(1, 2, 0).squeeze(-1).numpy()
        Image.fromarray(pixels).save(directory / names[int(label)] / f"{number:04d}{suffix}")


def write_idx(path: Path, values: np.ndarray, *, compressed: bool = False) -> None:
    """An array of bytes as MNIST's files hold it."""
    header = struct.pack(f">{1 + values.ndim}i", 0x800 + values.ndim, *values.shape)
    data = header + values.astype(np.uint8).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data) if compressed else data)


def write_mnist(
    directory: Path, *, train: int = 60, test: int = 20, compressed: bool = True
) -> None:
    """Four files laid out and named as MNIST's: random digits of 28x28."""
    random = np.random.default_rng(0)
    suffix = ".gz" if compressed else ""
    for prefix, count in (("train", train), ("t10k", test)):
        images = random.integers(0, 256, (count, 28, 28))
        labels = np.arange(count) % 10
        for kind, values in (("images-idx3", images), ("labels-idx1", labels)):
            name = f"{prefix}-{kind}-ubyte{suffix}"
            write_idx(directory / name, values, compressed=compressed)


@contextmanager
def refused(*said: str) -> Iterator[None]:
    """A block that raises one line in which all of ``said`` stand."""
    with pytest.raises(UserError) as error:
        yield
    assert "\n" not in str(error.value)
    for part in said:
        assert part in str(error.value)
