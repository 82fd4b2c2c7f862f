"""Labelled images out of a folder: a class is a directory, and an image a file in it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from envs.errors import UserError, in_shell, printable
from rlcnn.data.images import (
    ImageFiles,
    LabelledImages,
    Split,
    StoredImages,
    Task,
    orientation,
    read_image,
    unreadable,
)

TEST_FRACTION = 0.2
"""Share of each class that is held out of a folder without parts of its own."""

# The parts of a folder, by what they may be called, in small letters.
_PARTS = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}

# Folders and files that are no classes and images, but come with them.
_CLUTTER = ("__MACOSX", "__pycache__", "@eaDir", "$RECYCLE.BIN", "System Volume Information")
_NO_IMAGES = frozenset(
    ".txt .csv .tsv .json .xml .md .html .yaml .yml .db .ini .log".split()  # noqa: SIM905
)

_log = logging.getLogger(__name__)

# Up to so many bytes, images of one size are decoded at the start and held in memory.
_HOLD_IN_MEMORY = 2 * 10**9


def load_folder(directory: Path, *, seed: int, channels: int | None = None) -> Split:
    """Images of ``train/<class>/`` and ``val/<class>/``, or of ``<class>/`` split by a seed.

    The images held out may also be in ``valid``, ``validation`` or ``test``, in any capitals. Of
    three parts the one for validation is taken, as ImageNet's is, and ``test`` is left alone.

    Every file is looked at before anything is trained. Images of one size that fit into memory are
    decoded here; others when asked for, so that a file whose header is whole and whose end is
    missing is found only then.

    Args:
        directory: holds the classes, or parts with the classes in them. Names that begin with a
            dot are passed over, and so are texts, tables and what systems leave (``Thumbs.db``).
        seed: chooses which images are held out where there are no parts: a fifth of each class,
            at least one.
        channels: 3 for RGB, 1 for grey; None takes grey where every image is grey.

    Raises:
        UserError: the directory is missing or holds no images; a class is empty or the only one;
            the parts differ in their classes; images lie a level too deep; a file is no image.
    """
    with _refusals(directory):
        return _load_folder(directory, seed, channels)


@contextmanager
def _refusals(directory: Path) -> Iterator[None]:
    """Turns what the system refuses inside the block, such as a directory, into one line."""
    try:
        yield
    except OSError as error:
        named = error.filename or directory
        raise UserError(f'cannot read "{named}": {error.strerror or error}') from error


def _load_folder(directory: Path, seed: int, channels: int | None) -> Split:
    if directory.exists() and not directory.is_dir():
        raise UserError(f'"{directory}" is a file, not a folder of images: unpack an archive first')
    if not directory.is_dir():
        raise UserError(f'image folder "{directory}" does not exist')
    parts = _parts(directory)
    if parts:
        _warn_of_other_folders(directory, parts)
    for folder in (directory, *(parts or ())):
        _warn_of_loose_images(folder)
    if parts is None:
        paths, labels, classes = _scan(directory)
        held_out = _hold_out(labels, classes, directory, seed)
        members = [
            ([path for path, out in zip(paths, held_out, strict=True) if out == part], part)
            for part in (False, True)
        ]
        (train, _), (test, _) = members
        train_labels, test_labels = labels[~held_out], labels[held_out]
    else:
        train, train_labels, classes = _scan(parts[0])
        test, test_labels, test_classes = _scan(parts[1])
        if classes != test_classes:
            odd = sorted(set(classes) ^ set(test_classes))[0]
            names = [part.name for part in parts]
            where, lacks = names if odd in classes else reversed(names)
            raise UserError(f'"{directory}": class "{odd}" is in {where}/, but not in {lacks}/')
    return _split(train, train_labels, test, test_labels, classes, channels)


def has_parts(directory: Path) -> bool:
    """Whether a folder says itself which images are held out, by ``train`` and a second part."""
    with _refusals(directory):
        return directory.is_dir() and _parts(directory) is not None


def _parts(directory: Path) -> tuple[Path, Path] | None:
    """The parts to learn from and to hold out; None where the classes lie in the folder itself."""
    found: dict[str, list[Path]] = {kind: [] for kind in _PARTS}
    for folder in _folders(directory):
        for kind, names in _PARTS.items():
            # A class may be called "train", too: then images lie in it, and no folders.
            if folder.name.lower() in names and _folders(folder):
                found[kind].append(folder)
    for folders in found.values():
        if len(folders) > 1:
            given = " and ".join(f"{folder.name}/" for folder in folders)
            raise UserError(f'"{directory}" has {given}: only one of them can be meant')
    if not any(found.values()):
        present_names = {folder.name.lower() for folder in _folders(directory)}
        kinds = [kind for kind, called in _PARTS.items() if present_names & set(called)]
        if len(present_names) == len(kinds) > 1 and "train" in kinds:
            given = ", ".join(f"{name}/" for name in sorted(present_names))
            raise UserError(
                f'"{directory}" has {given} without a'
                " folder for each class in them: expected train/<class>/<image>"
            )
        return None
    held_out = found["validation"] or found["test"]
    if found["train"] and held_out:
        return found["train"][0], held_out[0]
    present = (found["train"] or held_out)[0].name
    lacks = "train/" if held_out else "val/ or test/ with a folder for each class"
    raise UserError(f'"{directory}" has {present}/, but no {lacks} beside it')


def _folders(directory: Path) -> list[Path]:
    entries = (p for p in directory.iterdir() if not p.name.startswith("."))
    return sorted(p for p in entries if p.is_dir() and p.name not in _CLUTTER)


def _images(folder: Path) -> list[Path]:
    """The files of a class that are meant to be images."""
    entries = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
    files = [p for p in entries if not p.is_dir() and p.suffix.lower() not in _NO_IMAGES]
    if folders := _folders(folder):
        inner = folders[0]
        if files:
            raise UserError(f'class "{folder.name}" holds a folder beside its images: "{inner}"')
        message = f'"{inner}" lies a level too deep, expected <class>/<image>'
        # Otherwise the command would mix the images of several folders.
        if any(len(_folders(each)) > 1 for each in _folders(folder.parent)):
            raise UserError(f"{message}, or train/<class>/<image> and val/<class>/<image>")
        raise UserError(
            f"{message}: for d in {in_shell(folder.parent)}/*/*/; do"
            ' mv "$d"* "$d"..; rmdir "$d"; done moves the images of all classes'
        )
    return files


def _warn_of_loose_images(directory: Path) -> None:
    """Says in one line which images lie beside the folders and so belong to no class."""
    from PIL import Image

    endings = Image.registered_extensions()
    loose = sorted(
        p.name
        for p in directory.iterdir()
        if p.suffix.lower() in endings and not p.name.startswith(".") and p.is_file()
    )
    if loose and _folders(directory):
        _log.warning(
            '"%s" holds %d image%s beside its folders, of no class and so left out: "%s"%s',
            printable(str(directory)),
            len(loose),
            "s" * (len(loose) != 1),
            printable(loose[0]),
            " ..." * (len(loose) != 1),
        )


def _warn_of_other_folders(directory: Path, parts: tuple[Path, ...]) -> None:
    """Says in one line which folders are no part; a third part is known to be left alone."""
    known = {name for names in _PARTS.values() for name in names}
    for folder in _folders(directory):
        if folder not in parts and folder.name.lower() not in known:
            _log.warning(
                '"%s" is no part of the images and so left out: expected train/ and val/ or test/',
                printable(str(folder)),
            )


def _scan(directory: Path) -> tuple[list[Path], np.ndarray, tuple[str, ...]]:
    """All files of the classes of a directory, their labels, and the classes by name."""
    entries = sorted(p for p in directory.iterdir() if not p.name.startswith("."))
    folders = _folders(directory)
    for entry in entries:
        if entry.is_symlink() and not entry.exists():
            raise UserError(f'"{entry}" is a link to what does not exist')
    if not folders:
        found = "images, but no folder for each class" if entries else "no images"
        raise UserError(f'"{directory}" holds {found}: expected <class>/<image>')
    if len(folders) == 1 and _folders(folders[0]):
        raise UserError(
            f'"{directory}" holds one folder only, whose folders may be the classes: give'
            f' "{folders[0]}"'
        )
    if len(folders) == 1:
        raise UserError(
            f'"{directory}" holds one class only, "{folders[0].name}": there is nothing to tell'
            " it from"
        )
    paths: list[Path] = []
    labels: list[int] = []
    for label, folder in enumerate(folders):
        files = _images(folder)
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
        # A pipe would be waited for.
        if not path.is_file():
            raise UserError(f'"{path}" is no file, or a link to what does not exist')
        try:
            with Image.open(path) as image:
                turned = orientation(image)
                width, height = image.size
                # From 5 on it lies on its side.
                sizes.add((height, width) if turned > 4 else (width, height))
                grey = grey and _is_grey(image.mode)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise unreadable(path, error) from error
    return sizes, grey


def _is_grey(mode: str) -> bool:
    """Whether images of a mode of Pillow's are grey, without transparency."""
    return mode in ("1", "L") or mode.startswith("I;16")
