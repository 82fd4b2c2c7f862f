"""Images with labels: in memory, as stacks of frames, or as files decoded when asked for."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from envs.errors import UserError
from rlcnn.data.decoding import read_image

UNKNOWN = -1
"""The label of an image whose class in a task is not known: left out of loss and accuracy."""

MAX_BYTES_IN_MEMORY = 2 * 10**9
"""Image files are decoded once and kept in memory if they take no more bytes than this."""


class Task(NamedTuple):
    """One question about every image, and its possible answers."""

    name: str
    classes: tuple[str, ...]


class Episodes(NamedTuple):
    """Which images are frames of one episode, and so depend on each other.

    The index of the game that each image shows, and its episode; both are int64 (images,). Games
    share no ids.
    """

    games: torch.Tensor
    ids: torch.Tensor

    def at(self, indices: torch.Tensor | list[int]) -> Episodes:
        """The same for some of the images."""
        return Episodes(self.games[indices], self.ids[indices])


class Actions(NamedTuple):
    """Actions between consecutive observations of games.

    Attributes:
        names: of the actions.
        taken: int64 (observations,): the index of the action between the observation before and
            this one; ``UNKNOWN`` for the first of a game and for an action without a name.
        rewards: int64 (observations,): of the same steps, not clipped; 0 for the first of a game.
    """

    names: tuple[str, ...]
    taken: torch.Tensor
    rewards: torch.Tensor


class Split(NamedTuple):
    """Training images and held-out images; both have the same tasks."""

    train: LabelledImages
    test: LabelledImages


class LabelledImages(ABC):
    """Images with one label for each of one or more tasks; a single one is named "class".

    Attributes:
        tasks: the questions.
        labels: int64 (images, tasks), on the CPU; ``UNKNOWN`` where a class is not known.
        channels: of every image.
        image_shape: (channels, height, width) of every image; None where their sizes differ.
        episodes: which images depend on each other; None where none do.
        paths: their files; None where they are no files of their own.
    """

    episodes: Episodes | None = None
    paths: Sequence[Path] | None = None

    def __init__(
        self,
        labels: torch.Tensor,
        tasks: Sequence[Task],
        channels: int,
        size: Sequence[int] | None = None,
    ) -> None:
        """Checks the labels, integers (images, tasks), or (images,) for a single task.

        ``size`` is the height and width of every image.

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
            _check_labels(labels[:, column], task)
        self.labels = labels
        self.tasks = tuple(tasks)
        self.channels = channels
        self.image_shape = None if size is None else (channels, size[0], size[1])

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def __getitem__(self, index: int) -> torch.Tensor:
        """One image, uint8 (channels, height, width).

        Raises:
            UserError: its file cannot be read as an image.
        """

    def name(self, index: int) -> str:
        """The name of an image: that of its file, or ``image 3``."""
        return self.paths[index].name if self.paths else f"image {index}"

    def gather(self, indices: torch.Tensor) -> torch.Tensor:
        """Images of one size at int64 indices, uint8 (batch, channels, height, width).

        The indices lie on the device that stores the pixels, and so does the result. Errors are
        those of :meth:`__getitem__`.
        """
        return torch.stack([self[index] for index in indices.tolist()])

    def stored_on(self, device: torch.device, most: int) -> LabelledImages | None:
        """A copy whose pixels lie on ``device``; its labels stay on the CPU.

        None if the images are not in memory, or take more than ``most`` bytes.
        """
        return None


def _check_labels(labels: torch.Tensor, task: Task) -> None:
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


def draw_indices(
    labels: torch.Tensor, count: int | None, random: np.random.Generator, part: str
) -> torch.Tensor:
    """Draws ``count`` of the images whose label is known, int64 (count,), in order; None takes all.

    ``labels`` are int64 (images,). ``part``, "train" or "test", names the option in the message.

    Raises:
        UserError: there are not as many.
    """
    known = np.flatnonzero(labels.numpy() != UNKNOWN)
    if count is None:
        return torch.from_numpy(known)
    if not 1 <= count <= len(known):
        raise UserError(
            f"--{part}-size {count} must be at least 1 and at most {len(known)}, the number of"
            f" {part} images with a known class"
        )
    return torch.from_numpy(np.sort(random.permutation(known)[:count]))


class StoredImages(LabelledImages):
    """Images of one size, in memory."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor, tasks: Sequence[Task]) -> None:
        """Takes ``images``, uint8 (images, channels, height, width), without a copy.

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
        super().__init__(labels, tasks, images.shape[1], images.shape[2:])
        self.images = images

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.images[index]

    def gather(self, indices: torch.Tensor) -> torch.Tensor:
        return self.images[indices]

    def subset(self, indices: torch.Tensor) -> StoredImages:
        """A copy of the images at int64 ``indices``."""
        return StoredImages(self.images[indices], self.labels[indices], self.tasks)

    def stored_on(self, device: torch.device, most: int) -> StoredImages | None:
        if self.images.nbytes > most:
            return None
        stored = copy.copy(self)
        stored.images = self.images.to(device)
        return stored


class StackedFrames(LabelledImages):
    """An agent's observations, rebuilt at each use from frames that are stored once.

    An observation shares all but one of its frames with the one before it. 100,000 grey ones of
    4 x 84 x 84 take 0.7 GB instead of 2.8 GB.

    Attributes:
        frames: uint8 (frames, C, height, width); the first is all zeros and pads fresh stacks.
        stacks: int64 (observations, frame_stack): frame numbers, oldest first.
        about: how the observations were made, as JSON values.
        actions: if all observations of each game follow each other, the actions between them;
            otherwise None.
    """

    def __init__(
        self,
        frames: torch.Tensor,
        stacks: torch.Tensor,
        labels: torch.Tensor,
        tasks: Sequence[Task],
        about: Mapping[str, Any],
        episodes: Episodes | None = None,
        actions: Actions | None = None,
    ) -> None:
        """Takes the frames without a copy: two splits may share them.

        Raises:
            UserError: as for :class:`LabelledImages`, which also describes labels and tasks.
            ValueError: the stacks do not fit the frames or the labels.
        """
        if frames.dtype != torch.uint8 or frames.ndim != 4:
            raise ValueError(f"expected uint8 (n, c, h, w), not {frames.dtype} {frames.shape}")
        stacks = stacks.to(torch.int64)
        if stacks.ndim != 2 or len(stacks) != len(labels):
            raise ValueError(f"stacks of shape {tuple(stacks.shape)}, but {len(labels)} labels")
        if len(stacks) and not 0 <= int(stacks.min()) <= int(stacks.max()) < len(frames):
            raise ValueError(f"stacks must be of frames 0 to {len(frames) - 1}")
        super().__init__(labels, tasks, stacks.shape[1] * frames.shape[1], frames.shape[2:])
        self.frames = frames
        self.stacks = stacks
        self.about = dict(about)
        self.episodes = episodes
        self.actions = actions

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.frames[self.stacks[index]].flatten(0, 1)

    def gather(self, indices: torch.Tensor) -> torch.Tensor:
        return self.frames[self.stacks[indices]].flatten(1, 2)

    def stored_on(self, device: torch.device, most: int) -> StackedFrames | None:
        # Copies only the frames in its own stacks.
        used, stacks = self.stacks.unique(return_inverse=True)
        if len(used) * self.frames[0].nbytes + stacks.nbytes > most:
            return None
        stored = copy.copy(self)
        stored.frames, stored.stacks = self.frames[used].to(device), stacks.to(device)
        return stored


class ImageFiles(LabelledImages):
    """Image files; each is decoded when it is asked for, at its own size."""

    def __init__(
        self,
        paths: Sequence[Path],
        labels: torch.Tensor,
        tasks: Sequence[Task],
        *,
        channels: int = 3,
        resize: int = 0,
    ) -> None:
        """Stores the paths, one for each image; no file is opened yet.

        Files are decoded to RGB with 3 channels and to grey with 1, and resized to a shorter side
        of ``resize`` pixels, if it is not 0.

        Raises:
            UserError: there are no files, or as for :class:`LabelledImages`.
        """
        if not paths:
            raise UserError("there are no images")
        super().__init__(labels, tasks, channels)
        self.paths: list[Path] = list(paths)
        self.resize = resize

    def subset(self, indices: torch.Tensor) -> ImageFiles:
        """The files at int64 ``indices``."""
        paths = [self.paths[index] for index in indices.tolist()]
        labels, channels = self.labels[indices], self.channels
        return ImageFiles(paths, labels, self.tasks, channels=channels, resize=self.resize)

    def __getitem__(self, index: int) -> torch.Tensor:
        return read_image(self.paths[index], self.channels, self.resize)


class JoinedImages(LabelledImages):
    """The training images of a split, followed by its held-out images."""

    def __init__(self, split: Split) -> None:
        train, shapes = split.train, {part.image_shape for part in split}
        size = train.image_shape[1:] if train.image_shape and len(shapes) == 1 else None
        labels = torch.cat([part.labels for part in split])
        super().__init__(labels, train.tasks, train.channels, size)
        self._split = split
        first, second = (part.episodes for part in split)
        if first is not None and second is not None:
            later = second.ids + first.ids.max() + 1
            self.episodes = Episodes(
                torch.cat((first.games, second.games)), torch.cat((first.ids, later))
            )

    def __getitem__(self, index: int) -> torch.Tensor:
        part, place = self._place(index)
        return part[place]

    def name(self, index: int) -> str:
        part, place = self._place(index)
        return part.name(place)

    def _place(self, index: int) -> tuple[LabelledImages, int]:
        train, test = self._split
        return (train, index) if index < len(train) else (test, index - len(train))
