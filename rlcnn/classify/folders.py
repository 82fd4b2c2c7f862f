"""Labelled images out of a folder: a class is a directory, and an image a file in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from envs.errors import UserError
from rlcnn.classify.images import (
    ImageFiles,
    LabelledImages,
    Split,
    StoredImages,
    Task,
    is_grey,
    read_image,
    unreadable,
)

TEST_FRACTION = 0.2
"""Share of each class that is held out of a folder that has no test/ of its own."""

# Up to so many bytes, images of one size are decoded at the start and held in memory.
_HOLD_IN_MEMORY = 2 * 10**9


def load_folder(directory: Path, *, seed: int, channels: int | None = None) -> Split:
    """Images of ``train/<class>/`` and ``test/<class>/``, or of ``<class>/`` split by a seed.

    Every file is looked at before anything is trained. Images of one size that fit into memory are
    decoded here; others when asked for, so that a file whose header is whole and whose end is
    missing is found only then.

    Args:
        directory: holds the classes, or ``train`` and ``test`` with the classes in them. Names
            that begin with a dot are passed over.
        seed: chooses which images are held out where there is no ``test``: a fifth of each class,
            at least one.
        channels: 3 for RGB, 1 for grey; None takes grey where every image is grey.

    Raises:
        UserError: the directory is missing or holds no images; a class is empty or the only one;
            ``train`` and ``test`` differ in their classes; a file is no image.
    """
    if not directory.is_dir():
        raise UserError(f'image folder "{directory}" does not exist')
    parts = {name: directory / name for name in ("train", "test")}
    present = [name for name, path in parts.items() if path.is_dir()]
    if len(present) == 1:
        other = "test" if present == ["train"] else "train"
        raise UserError(f'"{directory}" has {present[0]}/, but no {other}/ beside it')
    if not present:
        paths, labels, classes = _scan(directory)
        held_out = _hold_out(labels, classes, directory, seed)
        members = [
            ([path for path, out in zip(paths, held_out, strict=True) if out == part], part)
            for part in (False, True)
        ]
        (train, _), (test, _) = members
        train_labels, test_labels = labels[~held_out], labels[held_out]
    else:
        train, train_labels, classes = _scan(parts["train"])
        test, test_labels, test_classes = _scan(parts["test"])
        if classes != test_classes:
            odd = sorted(set(classes) ^ set(test_classes))[0]
            where, lacks = ("train", "test") if odd in classes else ("test", "train")
            raise UserError(f'"{directory}": class "{odd}" is in {where}/, but not in {lacks}/')
    return _split(train, train_labels, test, test_labels, classes, channels)


def has_parts(directory: Path) -> bool:
    """Whether a folder says itself which images are held out, by ``train`` and ``test``."""
    return all((directory / part).is_dir() for part in ("train", "test"))


def _scan(directory: Path) -> tuple[list[Path], np.ndarray, tuple[str, ...]]:
    """All files of the classes of a directory, their labels, and the classes by name."""
    entries = sorted(p for p in directory.iterdir() if not p.name.startswith("."))
    folders = [entry for entry in entries if entry.is_dir()]
    if not folders:
        found = "images, but no folder for each class" if entries else "no images"
        raise UserError(f'"{directory}" holds {found}: expected <class>/<image>')
    if len(folders) == 1:
        raise UserError(
            f'"{directory}" holds one class only, "{folders[0].name}": there is nothing to tell'
            " it from"
        )
    paths: list[Path] = []
    labels: list[int] = []
    for label, folder in enumerate(folders):
        files = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
        if not files:
            raise UserError(f'class "{folder.name}" is empty: no image lies in "{folder}"')
        paths += files
        labels += [label] * len(files)
    return paths, np.array(labels), tuple(folder.name for folder in folders)


def _hold_out(labels: np.ndarray, classes: Sequence[str], directory: Path, seed: int) -> np.ndarray:
    """Which images are held out: the same share of each class."""
    random = np.random.default_rng(seed)
    held_out = np.zeros(len(labels), dtype=bool)
    for label, name in enumerate(classes):
        members = np.flatnonzero(labels == label)
        if len(members) < 2:
            raise UserError(
                f'class "{name}" of "{directory}" has one image: none is left to hold out'
            )
        count = max(1, round(TEST_FRACTION * len(members)))
        held_out[random.permutation(members)[:count]] = True
    return held_out


def _split(
    train: list[Path],
    train_labels: np.ndarray,
    test: list[Path],
    test_labels: np.ndarray,
    classes: tuple[str, ...],
    channels: int | None,
) -> Split:
    sizes, grey = _inspect([*train, *test])
    channels = channels or (1 if grey else 3)
    task = Task("class", classes)
    largest = max(width * height for width, height in sizes)
    count = len(train) + len(test)
    in_memory = len(sizes) == 1 and count * largest * channels <= _HOLD_IN_MEMORY

    def images(paths: list[Path], labels: np.ndarray) -> LabelledImages:
        known = torch.from_numpy(labels)
        if not in_memory:
            return ImageFiles(paths, known, [task], channels=channels)
        return StoredImages(torch.stack([read_image(p, channels) for p in paths]), known, [task])

    return Split(images(train, train_labels), images(test, test_labels))


def _inspect(paths: Sequence[Path]) -> tuple[set[tuple[int, int]], bool]:
    """The sizes (width, height) of images, and whether all are grey, by their headers."""
    from PIL import Image

    sizes: set[tuple[int, int]] = set()
    grey = True
    for path in paths:
        try:
            with Image.open(path) as image:
                sizes.add(image.size)
                grey = grey and is_grey(image.mode)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise unreadable(path, error) from error
    return sizes, grey
