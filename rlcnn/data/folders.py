"""Labelled images in a folder: each class is a directory, and each file in it an image."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, compress
from pathlib import Path

import numpy as np
import torch

from envs.errors import UserError, in_shell, printable
from rlcnn.data.decoding import orientation, read_image, unreadable
from rlcnn.data.images import MAX_BYTES_IN_MEMORY, ImageFiles, Split, StoredImages, Task

TEST_FRACTION = 0.2
"""Share of each class that is held out if the folder has no parts."""

# Parts of a folder -> their possible names, in lower case.
_PARTS = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}

# Folders that are not classes, and files that are not images.
_CLUTTER = ("__MACOSX", "__pycache__", "@eaDir", "$RECYCLE.BIN", "System Volume Information")
_NO_IMAGES = frozenset(
    ".txt .csv .tsv .json .xml .md .html .yaml .yml .db .ini .log".split()  # noqa: SIM905
)

_log = logging.getLogger(__name__)


def load_folder(directory: Path, *, seed: int, channels: int | None = None) -> Split:
    """Loads ``train/<class>/`` and ``val/<class>/``, or splits ``<class>/`` by a seed.

    The held-out part may also be called ``valid``, ``validation`` or ``test``, in any case. Of
    three parts, validation is held out, as for ImageNet, and ``test`` is not used. Hidden names,
    texts, tables and files of the system (``Thumbs.db``) are ignored.

    The header of every file is read here. Images of one size that fit into memory are decoded
    here, too. Others are decoded at each use, so a file without its end is found only then.

    Args:
        directory: holds the classes, or parts with the classes in them.
        seed: decides which images are held out if there are no parts: a fifth of each class, at
            least one.
        channels: 3 for RGB, 1 for grey; None takes grey if every image is grey.

    Raises:
        UserError: the directory is missing or holds no images; a class is empty or the only one;
            the parts differ in their classes; images lie a level too deep; a file is no image.
    """
    with _system_errors(directory):
        if directory.exists() and not directory.is_dir():
            raise UserError(
                f'"{directory}" is a file, not a folder of images: unpack an archive first'
            )
        if not directory.is_dir():
            raise UserError(f'image folder "{directory}" does not exist')
        members, classes = _members(directory, seed)
        everything = [path for paths, _ in members for path in paths]
        sizes, grey = _inspect(everything)
        channels = channels or (1 if grey else 3)
        pixels = len(everything) * max(width * height for width, height in sizes)
        in_memory = len(sizes) == 1 and pixels * channels <= MAX_BYTES_IN_MEMORY
        task = Task("class", classes)
        images: list[StoredImages | ImageFiles] = []
        for paths, labels in members:
            known = torch.from_numpy(labels)
            if in_memory:
                decoded = torch.stack([read_image(path, channels) for path in paths])
                images.append(StoredImages(decoded, known, [task]))
                images[-1].paths = paths
            else:
                images.append(ImageFiles(paths, known, [task], channels=channels))
        return Split(*images)


def has_parts(directory: Path) -> bool:
    """Whether a folder has a training part and a held-out part."""
    with _system_errors(directory):
        return directory.is_dir() and _parts(directory) is not None


@contextmanager
def _system_errors(directory: Path) -> Iterator[None]:
    """Turns errors of the system into user errors."""
    try:
        yield
    except OSError as error:
        named = error.filename or directory
        raise UserError(f'cannot read "{named}": {error.strerror or error}') from error


# Image files and their labels.
_Member = tuple[list[Path], np.ndarray]


def _members(directory: Path, seed: int) -> tuple[list[_Member], tuple[str, ...]]:
    """The training and the held-out images, and the names of the classes."""
    parts = _parts(directory)
    if parts:
        _warn_of_other_folders(directory, parts)
    for folder in (directory, *(parts or ())):
        _warn_of_loose_images(folder)
    if parts is None:
        paths, labels, classes = _scan(directory)
        held_out = _hold_out(labels, classes, directory, seed)
        masks = (~held_out, held_out)
        return [([*compress(paths, mask)], labels[mask]) for mask in masks], classes
    train, train_labels, classes = _scan(parts[0])
    test, test_labels, test_classes = _scan(parts[1])
    if classes != test_classes:
        odd = sorted(set(classes) ^ set(test_classes))[0]
        names = [part.name for part in parts]
        where, lacks = names if odd in classes else reversed(names)
        raise UserError(f'"{directory}": class "{odd}" is in {where}/, but not in {lacks}/')
    return [(train, train_labels), (test, test_labels)], classes


def _parts(directory: Path) -> tuple[Path, Path] | None:
    """The training part and the held-out part; None if the folder itself holds the classes."""
    folders = _folders(directory)
    # A class may also be called "train"; it then holds images, not folders.
    found = {
        kind: [each for each in folders if each.name.lower() in names and _folders(each)]
        for kind, names in _PARTS.items()
    }
    for several in found.values():
        if len(several) > 1:
            given = " and ".join(f"{folder.name}/" for folder in several)
            raise UserError(f'"{directory}" has {given}: only one of them can be meant')
    if not any(found.values()):
        present_names = {folder.name.lower() for folder in folders}
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


def _visible(directory: Path) -> list[Path]:
    return sorted(path for path in directory.iterdir() if not path.name.startswith("."))


def _folders(directory: Path) -> list[Path]:
    return [p for p in _visible(directory) if p.is_dir() and p.name not in _CLUTTER]


def _images(folder: Path) -> list[Path]:
    """The image files of a class."""
    files = [p for p in _visible(folder) if not p.is_dir() and p.suffix.lower() not in _NO_IMAGES]
    if folders := _folders(folder):
        inner = folders[0]
        if files:
            raise UserError(f'class "{folder.name}" holds a folder beside its images: "{inner}"')
        message = f'"{inner}" lies a level too deep, expected <class>/<image>'
        # With several folders in a class, the command would mix their images.
        if any(len(_folders(each)) > 1 for each in _folders(folder.parent)):
            raise UserError(f"{message}, or train/<class>/<image> and val/<class>/<image>")
        raise UserError(
            f"{message}: for d in {in_shell(folder.parent)}/*/*/; do"
            ' mv "$d"* "$d"..; rmdir "$d"; done moves the images of all classes'
        )
    if not files:
        raise UserError(f'class "{folder.name}" is empty: no image lies in "{folder}"')
    return files


def _warn_of_loose_images(directory: Path) -> None:
    """Warns of images that lie beside the folders, and so belong to no class."""
    from PIL import Image

    endings = Image.registered_extensions()
    files = [path for path in _visible(directory) if path.is_file()]
    loose = [path.name for path in files if path.suffix.lower() in endings]
    if loose and _folders(directory):
        _log.warning(
            '"%s" holds %d image%s beside its folders, without a class, ignored: "%s"%s',
            printable(str(directory)),
            len(loose),
            "s" * (len(loose) != 1),
            printable(loose[0]),
            " ..." * (len(loose) != 1),
        )


def _warn_of_other_folders(directory: Path, parts: tuple[Path, ...]) -> None:
    """Warns of folders that are not parts."""
    known = {name for names in _PARTS.values() for name in names}
    for folder in _folders(directory):
        if folder not in parts and folder.name.lower() not in known:
            _log.warning(
                '"%s" is not a part of the images, ignored: expected train/ and val/ or test/',
                printable(str(folder)),
            )


def _scan(directory: Path) -> tuple[list[Path], np.ndarray, tuple[str, ...]]:
    """The image files of a directory, their labels, and the names of the classes."""
    entries, folders = _visible(directory), _folders(directory)
    for entry in entries:
        if entry.is_symlink() and not entry.exists():
            raise UserError(f'"{entry}" is a broken link')
    if not folders:
        found = "images, but no folder for each class" if entries else "no images"
        raise UserError(f'"{directory}" holds {found}: expected <class>/<image>')
    if len(folders) == 1 and _folders(folders[0]):
        raise UserError(
            f'"{directory}" holds only one folder, whose folders may be the classes: give'
            f' "{folders[0]}"'
        )
    if len(folders) == 1:
        raise UserError(
            f'"{directory}" holds only one class, "{folders[0].name}": expected at least two'
        )
    files = [_images(folder) for folder in folders]
    labels = np.repeat(np.arange(len(folders)), [len(each) for each in files])
    return [*chain(*files)], labels, tuple(folder.name for folder in folders)


def _hold_out(labels: np.ndarray, classes: Sequence[str], directory: Path, seed: int) -> np.ndarray:
    """A mask of the held-out images: the same share of each class."""
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


def _inspect(paths: Sequence[Path]) -> tuple[set[tuple[int, int]], bool]:
    """The sizes (width, height) in the headers of images, and whether all are grey."""
    from PIL import Image

    sizes: set[tuple[int, int]] = set()
    grey = True
    for path in paths:
        # Opening a pipe would block.
        if not path.is_file():
            raise UserError(f'"{path}" is not a file, or is a broken link')
        try:
            with Image.open(path) as image:
                turned = orientation(image)
                width, height = image.size
                # Orientations from 5 on swap the axes.
                sizes.add((height, width) if turned > 4 else (width, height))
                grey = grey and (image.mode in ("1", "L") or image.mode.startswith("I;16"))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise unreadable(path, error) from error
    return sizes, grey
