"""Images with labels: in memory, or as files that are decoded when asked for."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

from envs.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

UNKNOWN = -1
"""The label of an image whose class in a task is not known: left out of loss and accuracy."""

COLOURS = {1: "L", 3: "RGB"}
"""Channels of an image file -> the mode that Pillow converts it to."""

# How Pillow names grey images of 16 bits, whatever the order of their bytes.
_SIXTEEN_BITS = "I;16"


class Task(NamedTuple):
    """One question about every image, and the answers there are."""

    name: str
    classes: tuple[str, ...]


class Episodes(NamedTuple):
    """Which images come from one episode, and so depend on each other: frames of games.

    Attributes:
        games: int64 (images,): which of the games each shows.
        ids: int64 (images,): in which of all the games played it was seen; none is of two
            games.
    """

    games: torch.Tensor
    ids: torch.Tensor

    def at(self, indices: torch.Tensor | list[int]) -> Episodes:
        """Those of some of the images."""
        return Episodes(self.games[indices], self.ids[indices])


class Split(NamedTuple):
    """Images to learn from, and images held out; both have the same tasks."""

    train: LabelledImages
    test: LabelledImages


class LabelledImages(ABC):
    """Images and, for each of one or more tasks, the class of each.

    Ordinary classification is one task, named "class".

    Attributes:
        tasks: what is asked of each image.
        labels: int64 (images, tasks), on the CPU; ``UNKNOWN`` where a class is not known.
        episodes: which of them depend on each other; None where none do.
    """

    episodes: Episodes | None = None

    def __init__(self, labels: torch.Tensor, tasks: Sequence[Task]) -> None:
        """Checks the labels.

        Args:
            labels: integers (images, tasks), or (images,) for a single task.
            tasks: one for each column.

        Raises:
            UserError: a task has fewer than two classes, or a label lies outside its classes.
            ValueError: the labels have another shape.
        """
        labels = labels.to(torch.int64)
        if labels.ndim == 1:
            labels = labels[:, None]
        if labels.ndim != 2 or labels.shape[1] != len(tasks):
            raise ValueError(f"labels of shape {tuple(labels.shape)} for {len(tasks)} tasks")
        for column, task in enumerate(tasks):
            check_labels(labels[:, column], task)
        self.labels = labels
        self.tasks = tuple(tasks)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    @abstractmethod
    def image_shape(self) -> tuple[int, int, int] | None:
        """(channels, height, width) of every image; None where they differ in size."""

    @property
    @abstractmethod
    def channels(self) -> int:
        """Channels of every image."""

    @abstractmethod
    def __getitem__(self, index: int) -> torch.Tensor:
        """One image, uint8 (channels, height, width).

        Raises:
            UserError: its file cannot be read as an image.
        """

    def gather(self, indices: torch.Tensor) -> torch.Tensor:
        """Images of one size at once; what is held in memory does this without a Python loop.

        Args:
            indices: int64 (batch,), on the CPU.

        Returns:
            uint8 (batch, channels, height, width), on the CPU.

        Raises:
            UserError: a file cannot be read as an image.
            RuntimeError: the images differ in size.
        """
        return torch.stack([self[index] for index in indices.tolist()])

    def stored_on(self, device: torch.device, most: int) -> LabelledImages | None:
        """A copy whose pixels lie on ``device``, where ``gather`` takes and returns its tensors.

        Labels stay on the CPU.

        Args:
            device: where to store the pixels.
            most: bytes that they may take.

        Returns:
            None where the images are not held in memory, or take more bytes.
        """
        return None


def check_labels(labels: torch.Tensor, task: Task) -> None:
    """Refuses labels that are none of a task's classes, and a task that asks nothing.

    Raises:
        UserError: the task has fewer than two classes, or a label lies outside them.
    """
    count = len(task.classes)
    if count < 2:
        only = f', "{task.classes[0]}"' if task.classes else ""
        raise UserError(f'"{task.name}" has {count} class{"es" * (count != 1)}{only}: needs 2')
    wrong = (labels < UNKNOWN) | (labels >= count)
    if wrong.any():
        index = int(wrong.nonzero()[0])
        raise UserError(
            f'image {index} has label {int(labels[index])} for "{task.name}", which has {count}'
            f" classes: expected 0 to {count - 1}, or {UNKNOWN} for unknown"
        )


class StoredImages(LabelledImages):
    """Images of one size, held in memory.

    Attributes:
        images: uint8 (images, channels, height, width).
    """

    def __init__(self, images: torch.Tensor, labels: torch.Tensor, tasks: Sequence[Task]) -> None:
        """Takes the images as they are, without a copy.

        Args:
            images: uint8 (images, channels, height, width).
            labels: integers (images, tasks), or (images,) for a single task.
            tasks: what the labels answer.

        Raises:
            UserError: there are no images, or as for :class:`LabelledImages`.
            ValueError: the images have another shape or type, or are not as many as the labels.
        """
        if images.dtype != torch.uint8 or images.ndim != 4:
            raise ValueError(f"expected uint8 (n, c, h, w), not {images.dtype} {images.shape}")
        if len(images) != len(labels):
            raise ValueError(f"{len(images)} images, but {len(labels)} labels")
        if not len(images):
            raise UserError("there are no images")
        super().__init__(labels, tasks)
        self.images = images

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of every image."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    @property
    def channels(self) -> int:
        """Channels of every image."""
        return self.images.shape[1]

    def __getitem__(self, index: int) -> torch.Tensor:
        """One image, uint8 (channels, height, width)."""
        return self.images[index]

    def gather(self, indices: torch.Tensor) -> torch.Tensor:
        """Images at once, uint8 (batch, channels, height, width)."""
        return self.images[indices]

    def stored_on(self, device: torch.device, most: int) -> StoredImages | None:
        """See :meth:`LabelledImages.stored_on`."""
        if self.images.nbytes > most:
            return None
        stored = copy.copy(self)
        stored.images = self.images.to(device)
        return stored


class ImageFiles(LabelledImages):
    """Image files, each decoded when it is asked for, at its own size.

    Attributes:
        paths: one file for each image.
        resize: the shorter side in pixels that each is brought to; 0 leaves them as they are.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        labels: torch.Tensor,
        tasks: Sequence[Task],
        *,
        channels: int = 3,
        resize: int = 0,
    ) -> None:
        """Takes note of the files; none is opened yet.

        Args:
            paths: image files.
            labels: integers (images, tasks), or (images,) for a single task.
            tasks: what the labels answer.
            channels: 3 decodes to RGB, 1 to grey, whatever the file holds.
            resize: shorter side in pixels; 0 leaves the images as they are.

        Raises:
            UserError: there are no files, or as for :class:`LabelledImages`.
        """
        if not paths:
            raise UserError("there are no images")
        super().__init__(labels, tasks)
        self.paths = list(paths)
        self.resize = resize
        self._channels = channels

    @property
    def image_shape(self) -> None:
        """None: their sizes may differ."""
        return None

    @property
    def channels(self) -> int:
        """Channels of every image as decoded."""
        return self._channels

    def __getitem__(self, index: int) -> torch.Tensor:
        """One image, uint8 (channels, height, width).

        Raises:
            UserError: the file is missing, truncated, damaged or no image.
        """
        return read_image(self.paths[index], self._channels, self.resize)


class JoinedImages(LabelledImages):
    """The images to learn from and, after them, those held out."""

    def __init__(self, split: Split) -> None:
        """Takes both parts as they are, without a copy."""
        super().__init__(torch.cat([part.labels for part in split]), split.train.tasks)
        self._split = split
        first, second = (part.episodes for part in split)
        if first is not None and second is not None:
            later = second.ids + first.ids.max() + 1
            self.episodes = Episodes(
                torch.cat((first.games, second.games)), torch.cat((first.ids, later))
            )

    @property
    def image_shape(self) -> tuple[int, int, int] | None:
        """(channels, height, width) of every image; None where they differ in size."""
        shapes = {part.image_shape for part in self._split}
        return shapes.pop() if len(shapes) == 1 else None

    @property
    def channels(self) -> int:
        """Channels of every image."""
        return self._split.train.channels

    def __getitem__(self, index: int) -> torch.Tensor:
        """One image, uint8 (channels, height, width)."""
        train, test = self._split
        return train[index] if index < len(train) else test[index - len(train)]


def read_image(path: Path, channels: int = 3, resize: int = 0) -> torch.Tensor:
    """Decodes an image file.

    It is turned upright where its EXIF data says how the camera was held, as viewers show it.

    Args:
        path: of any format that Pillow reads.
        channels: 3 for RGB, 1 for grey.
        resize: shorter side in pixels to bring it to (bilinear, antialiased); 0 leaves it.

    Returns:
        uint8 (channels, height, width).

    Raises:
        UserError: the file is missing, truncated, damaged or no image.
    """
    import numpy as np
    from PIL import Image

    try:
        with Image.open(path) as image:
            if image.mode in ("I", "F"):
                raise UserError(
                    f'"{path}" has pixels of 32 bits, whose range nothing tells: expected 8 or 16'
                )
            turned = orientation(image)
            pixels = _upright(_in_bytes(image), turned).convert(COLOURS[channels])
            if resize:
                factor = resize / min(pixels.size)
                width, height = (max(resize, round(side * factor)) for side in pixels.size)
                pixels = pixels.resize((width, height), Image.Resampling.BILINEAR)
    except UserError:
        raise
    # What a damaged file makes Pillow's many decoders raise is not one kind of error.
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise unreadable(path, error) from error
    array = np.array(pixels)
    return torch.from_numpy(array[None] if channels == 1 else array.transpose(2, 0, 1).copy())


def orientation(image: PillowImage) -> int:
    """How an image is to be turned, 1 (not at all) to 8, as EXIF numbers it."""
    from PIL import ExifTags

    # Pillow turns a TIFF itself when it decodes it, and changes its size.
    if image.format == "TIFF":
        image.load()
    # Damaged EXIF data raises errors of many kinds, and says nothing.
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:
        return 1
    return value if value in range(1, 9) else 1


def _upright(image: PillowImage, turned: int) -> PillowImage:
    from PIL.Image import Transpose

    methods = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    return image.transpose(methods[turned]) if turned in methods else image


def _in_bytes(image: PillowImage) -> PillowImage:
    """An image of 8 bits a channel: of 16 bits the upper ones, where Pillow would clip."""
    import numpy as np
    from PIL import Image

    # By way of RGBA, as Pillow advises in a warning for each such image.
    if image.mode == "P" and "transparency" in image.info:
        return image.convert("RGBA")
    if image.mode.startswith(_SIXTEEN_BITS):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image


def unreadable(path: Path, error: Exception) -> UserError:
    """What to tell of a file that is no whole image."""
    from PIL import Image, UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        what = "not an image that Pillow can read" if path.stat().st_size else "empty, not an image"
        return UserError(f'"{path}" is {what}')
    if isinstance(error, Image.DecompressionBombError):
        return UserError(f'"{path}" is too large: {error}')
    if isinstance(error, OSError) and error.strerror:
        return UserError(f'cannot read "{path}": {error.strerror}')
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return UserError(f'"{path}" is truncated or damaged: {reason}')
