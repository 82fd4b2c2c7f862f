"""Minibatches of labelled images, in an order and with changes that follow from a seed alone."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from envs.errors import UserError
from rlcnn.accelerate.transfers import Prefetcher
from rlcnn.data.augment import Augmentation
from rlcnn.data.images import Episodes, LabelledImages

# What a seed is for, so that no two uses share their random numbers.
_ORDER, _AUGMENT = range(2)

# Share of a GPU's free memory that images to learn from, or those held out, may take.
_SHARE_OF_GPU = 0.5


class Batch(NamedTuple):
    """Images uint8 (batch, channels, height, width), and labels int64 (batch, tasks)."""

    images: torch.Tensor
    labels: torch.Tensor


class _Prepared(NamedTuple):
    """What the host prepares of a minibatch.

    Attributes:
        rows: int64 (batch,), which of the images.
        images: uint8 (batch, channels, height, width); None where the device stores them.
        drawn: as :meth:`Augmentation.draw`; None where nothing more is done to the images.
    """

    rows: torch.Tensor
    images: torch.Tensor | None
    drawn: torch.Tensor | None = None


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
        parts = order.split(self._batch_size)[start : self.per_epoch]
        if self._images.image_shape and self._augmentation.batched:
            yield from self._on_device(self._drawn(parts, number, start))
            return
        changed = _Augmented(self._images, self._augmentation, self._seed, number)
        yield from self._on_device(self._one_by_one(changed, parts))

    def held_out(self) -> Iterator[Batch]:
        """All images once, in their own order, unaugmented."""
        return self._unaugmented(torch.arange(len(self._images)).split(self._batch_size))

    def at(self, rows: torch.Tensor) -> Batch:
        """Any images, unaugmented, by their numbers, int64 (batch,) on the CPU."""
        return next(self._unaugmented((rows,)))

    def _unaugmented(self, parts: tuple[torch.Tensor, ...]) -> Iterator[Batch]:
        if not self._images.image_shape:
            plain = _Plain(self._images, self._augmentation)
            yield from self._on_device(self._one_by_one(plain, parts))
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
        self, dataset: Dataset[Any], parts: tuple[torch.Tensor, ...]
    ) -> Iterator[_Prepared]:
        loader = DataLoader(
            dataset,
            batch_sampler=[rows.tolist() for rows in parts],
            num_workers=self._workers,
            collate_fn=_stacked,
            worker_init_fn=_ignore_signals,
            # In a thread beside the workers, where there are any.
            pin_memory=self._device.type == "cuda",
            # A loader draws a seed as it starts; from torch's own generator, whose state dropout
            # depends on, it would do so once more in a run that was resumed.
            generator=torch.Generator(),
        )
        for rows, images in zip(parts, loader, strict=True):
            if isinstance(images, UserError):
                # A worker hands its error over as a value: raised there, it would come wrapped in
                # a traceback.
                raise images
            yield _Prepared(rows, images)


def _stacked(images: list[torch.Tensor | UserError]) -> torch.Tensor | UserError:
    """One tensor, which a worker hands over as one; the first error where there is one."""
    for image in images:
        if isinstance(image, UserError):
            return image
    return torch.stack(images)  # type: ignore[arg-type]


class _Plain(Dataset[Any]):
    """Images unaugmented."""

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
