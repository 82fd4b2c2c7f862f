"""Minibatches of labelled images; their order and augmentation follow from a seed alone."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from envs.errors import UserError
from rlcnn.accelerate.transfers import Prefetcher
from rlcnn.data.augment import Augmentation
from rlcnn.data.images import Episodes, LabelledImages

# Purposes of a seed; no two purposes share random numbers.
_ORDER, _AUGMENT = range(2)

# Share of a GPU's free memory that training images, or held-out images, may take.
_SHARE_OF_GPU = 0.5


class Batch(NamedTuple):
    """Images uint8 (batch, channels, height, width), and labels int64 (batch, tasks)."""

    images: torch.Tensor
    labels: torch.Tensor


class _Prepared(NamedTuple):
    """The part of a minibatch that the host prepares.

    Attributes:
        rows: int64 (batch,), indices of the images.
        images: uint8 (batch, channels, height, width); None where the device stores them.
        drawn: random numbers of :meth:`Augmentation.draw`; None for no further augmentation.
    """

    rows: torch.Tensor
    images: torch.Tensor | None
    drawn: torch.Tensor | None = None


class Batches:
    """The minibatches of a set of images, epoch by epoch.

    Args:
        images: resized by :func:`~rlcnn.data.augment.bring_to_size`.
        augmentation: random changes, and the centre crop.
        batch_size: images in a minibatch. The last of an epoch has the remainder; a remainder of
            one image is skipped, since it has no batch statistics.
        seed: seed of order and augmentation.
        device: device of the minibatches.
        workers: processes that prepare images one by one, if whole batches are not prepared at
            once.

    Raises:
        UserError: there are fewer than two images.
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
            raise UserError("one image is too few to train on")
        self._images = images
        self._augmentation = augmentation
        self._batch_size = batch_size
        self._seed = seed
        self._device = device
        self._workers = workers
        self._prefetcher = Prefetcher(device)
        self._labels = images.labels.to(device)
        self._stored: LabelledImages | None = None
        if device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            self._stored = images.stored_on(device, int(_SHARE_OF_GPU * free))

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
        """Whether images are decoded anew at each use."""
        return self._images.image_shape is None

    @property
    def per_epoch(self) -> int:
        """Minibatches in an epoch."""
        full, rest = divmod(len(self._images), self._batch_size)
        return full + (rest > 1 or not full)

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """The training minibatches of one epoch, from number ``start`` on."""
        random = torch.Generator().manual_seed(_derive(self._seed, _ORDER, number))
        order = torch.randperm(len(self._images), generator=random)
        parts = order.split(self._batch_size)[start : self.per_epoch]
        if self._images.image_shape and self._augmentation.batched:
            yield from self._on_device(self._drawn(parts, number, start))
            return
        augment = partial(_augment, self._augmentation, self._seed, number)
        yield from self._on_device(self._one_by_one(augment, parts))

    def held_out(self) -> Iterator[Batch]:
        """All images once, in order, without augmentation."""
        return self._unaugmented(torch.arange(len(self._images)).split(self._batch_size))

    def at(self, rows: torch.Tensor) -> Batch:
        """Some images without augmentation; ``rows``: int64 (batch,) on the CPU."""
        return next(self._unaugmented((rows,)))

    def _unaugmented(self, parts: tuple[torch.Tensor, ...]) -> Iterator[Batch]:
        if not self._images.image_shape:
            hold_out = partial(_hold_out, self._augmentation)
            yield from self._on_device(self._one_by_one(hold_out, parts))
            return
        for batch in self._on_device(_Prepared(rows, self._gather(rows)) for rows in parts):
            yield batch._replace(images=self._augmentation.held_out(batch.images))

    def _drawn(
        self, parts: tuple[torch.Tensor, ...], number: int, start: int
    ) -> Iterator[_Prepared]:
        assert self._images.image_shape
        size = self._images.image_shape[1:]
        for place, rows in enumerate(parts, start):
            random = torch.Generator().manual_seed(_derive(self._seed, _AUGMENT, number, place))
            drawn = self._augmentation.draw(len(rows), size, random)
            yield _Prepared(rows, self._gather(rows), drawn)

    def _gather(self, rows: torch.Tensor) -> torch.Tensor | None:
        return self._images.gather(rows) if self._stored is None else None

    def _on_device(self, prepared: Iterable[_Prepared]) -> Iterator[Batch]:
        for rows, images, drawn in self._prefetcher.prefetch(prepared):
            if images is None:
                assert self._stored is not None
                images = self._stored.gather(rows)
            if drawn is not None:
                images = self._augmentation.apply(images, drawn)
            yield Batch(images, self._labels[rows])

    def _one_by_one(
        self,
        change: Callable[[torch.Tensor, int], torch.Tensor],
        parts: tuple[torch.Tensor, ...],
    ) -> Iterator[_Prepared]:
        loader = DataLoader(
            _OneByOne(self._images, change),
            batch_sampler=[rows.tolist() for rows in parts],
            num_workers=self._workers,
            collate_fn=_stacked,
            worker_init_fn=_ignore_signals,
            # With workers, a thread of its own does this.
            pin_memory=self._device.type == "cuda",
            # A loader draws a seed when it starts. Drawn from torch's global generator, it would
            # change dropout in a resumed run, which starts one loader more.
            generator=torch.Generator(),
        )
        for rows, images in zip(parts, loader, strict=True):
            if isinstance(images, UserError):
                # Workers return errors as values: a raised one would arrive with a traceback.
                raise images
            yield _Prepared(rows, images)


def _stacked(images: list[torch.Tensor | UserError]) -> torch.Tensor | UserError:
    """The images as one tensor, or the first error."""
    for image in images:
        if isinstance(image, UserError):
            return image
    return torch.stack(images)  # type: ignore[arg-type]


class _OneByOne(Dataset[Any]):
    """Images, each changed by itself; an unreadable one gives its error."""

    def __init__(
        self, images: LabelledImages, change: Callable[[torch.Tensor, int], torch.Tensor]
    ) -> None:
        self._images, self._change = images, change

    def __getitem__(self, index: int) -> torch.Tensor | UserError:
        try:
            return self._change(self._images[index], index)
        except UserError as error:
            return error


# Functions of the module, since processes that start anew must import them.


def _hold_out(augmentation: Augmentation, image: torch.Tensor, index: int) -> torch.Tensor:
    return augmentation.held_out(image)


def _augment(
    augmentation: Augmentation, seed: int, epoch: int, image: torch.Tensor, index: int
) -> torch.Tensor:
    return augmentation.image(image, _derive(seed, _AUGMENT, epoch, index))


def _derive(*entropy: int) -> int:
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]) >> 1


def _ignore_signals(_: int) -> None:
    """Ctrl-C reaches every process of a terminal; only the training process answers it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
