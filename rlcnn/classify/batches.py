"""Minibatches of labelled images, in an order and with changes that follow from a seed alone."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from envs.errors import UserError
from rlcnn.classify.augment import Augmentation
from rlcnn.classify.images import Episodes, LabelledImages, StoredImages

# What a seed is for, so that no two uses share their random numbers.
_ORDER, _AUGMENT = range(2)

# Images up to so many bytes are held on the device that learns from them.
_HOLD_ON_DEVICE = 8 * 10**9


class Batch(NamedTuple):
    """Images uint8 (batch, channels, height, width), and labels int64 (batch, tasks)."""

    images: torch.Tensor
    labels: torch.Tensor


class Batches:
    """The minibatches of a set of images, epoch by epoch.

    Args:
        images: brought to size.
        augmentation: what is done to them.
        batch_size: images in each; the last of an epoch has those left over, and is left out where
            that is a single one, of which no batch statistics can be taken.
        seed: of order and augmentation.
        device: where batches are wanted.
        workers: processes that prepare images one by one, where batches are not prepared whole.
    """

    def __init__(
        self,
        images: LabelledImages,
        augmentation: Augmentation,
        *,
        batch_size: int,
        seed: int,
        device: torch.device,
        workers: int = 0,
    ) -> None:
        if len(images) < 2:
            raise UserError("one image is too few to learn from")
        self._images = images
        self._augmentation = augmentation
        self._batch_size = batch_size
        self._seed = seed
        self._device = device
        self._workers = workers
        self._whole: torch.Tensor | None = None
        if isinstance(images, StoredImages) and images.images.nbytes <= _HOLD_ON_DEVICE:
            self._whole = images.images.to(device)

    def __len__(self) -> int:
        return len(self._images)

    @property
    def labels(self) -> torch.Tensor:
        """int64 (images, tasks), on the CPU."""
        return self._images.labels

    @property
    def episodes(self) -> Episodes | None:
        """Which images depend on each other."""
        return self._images.episodes

    @property
    def from_files(self) -> bool:
        """Whether images are read each time they are asked for."""
        return self._images.image_shape is None

    @property
    def per_epoch(self) -> int:
        """Minibatches in an epoch."""
        full, rest = divmod(len(self._images), self._batch_size)
        return full + (rest > 1 or not full)

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """The minibatches to learn from of one epoch, from that numbered ``start`` on."""
        random = torch.Generator().manual_seed(_derive(self._seed, _ORDER, number))
        order = torch.randperm(len(self._images), generator=random)
        indices = order.split(self._batch_size)[start : self.per_epoch]
        if self._images.image_shape and self._augmentation.batched:
            for place, index in enumerate(indices, start):
                images = self._gather(index)
                seed = _derive(self._seed, _AUGMENT, number, place)
                yield Batch(self._augmentation.batch(images, seed), self._labels(index))
            return
        changed = _Augmented(self._images, self._augmentation, self._seed, number)
        yield from self._one_by_one(changed, indices)

    def held_out(self) -> Iterator[Batch]:
        """All images once, in their own order, as they are judged."""
        indices = torch.arange(len(self._images)).split(self._batch_size)
        if self._images.image_shape:
            yield from map(self.at, indices)
            return
        yield from self._one_by_one(_Plain(self._images, self._augmentation), indices)

    def _gather(self, index: torch.Tensor) -> torch.Tensor:
        if self._whole is None:
            return self._images.gather(index).to(self._device)
        return self._whole[index.to(self._device)]

    def at(self, index: torch.Tensor) -> Batch:
        """Any images as they are judged, by their numbers, int64 (batch,) on the CPU."""
        if self._images.image_shape:
            images = self._augmentation.held_out(self._gather(index))
            return Batch(images, self._labels(index))
        return next(self._one_by_one(_Plain(self._images, self._augmentation), (index,)))

    def _labels(self, index: torch.Tensor) -> torch.Tensor:
        return self._images.labels[index].to(self._device)

    def _one_by_one(
        self, dataset: Dataset[Any], indices: tuple[torch.Tensor, ...]
    ) -> Iterator[Batch]:
        loader = DataLoader(
            dataset,
            batch_sampler=[index.tolist() for index in indices],
            num_workers=self._workers,
            collate_fn=list,
            worker_init_fn=_ignore_signals,
            # A loader draws a seed as it starts; from torch's own generator, whose state dropout
            # depends on, it would do so once more in a run that was resumed.
            generator=torch.Generator(),
        )
        for index, images in zip(indices, loader, strict=True):
            for image in images:
                # A worker hands its error over as a value: raised there, it would come wrapped in
                # a traceback.
                if isinstance(image, UserError):
                    raise image
            yield Batch(torch.stack(images).to(self._device), self._labels(index))


class _Plain(Dataset[Any]):
    """Images as they are judged."""

    def __init__(self, images: LabelledImages, augmentation: Augmentation) -> None:
        self._images, self._augmentation = images, augmentation

    def __getitem__(self, index: int) -> torch.Tensor | UserError:
        try:
            return self._changed(self._images[index], index)
        except UserError as error:
            return error

    def _changed(self, image: torch.Tensor, index: int) -> torch.Tensor:
        return self._augmentation.held_out(image)


class _Augmented(_Plain):
    """Images as they are learned from in one epoch."""

    def __init__(
        self, images: LabelledImages, augmentation: Augmentation, seed: int, epoch: int
    ) -> None:
        super().__init__(images, augmentation)
        self._seed, self._epoch = seed, epoch

    def _changed(self, image: torch.Tensor, index: int) -> torch.Tensor:
        return self._augmentation.image(image, _derive(self._seed, _AUGMENT, self._epoch, index))


def _derive(*entropy: int) -> int:
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]) >> 1


def _ignore_signals(_: int) -> None:
    """Ctrl-C reaches every process of a terminal; who answers it is the one that trains."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
