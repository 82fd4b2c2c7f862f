"""Minibatches of labelled images; their order and augmentation follow from a seed alone."""

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
from rlcnn.data.images import LabelledImages

# Purposes of a seed; no two purposes share random numbers.
ORDER, AUGMENT = range(2)

# Share of a GPU's free memory that training images, or held-out images, may take.
_SHARE_OF_GPU = 0.5


class Batch(NamedTuple):
    """Images uint8 (batch, channels, height, width), and labels int64 (batch, tasks)."""

    images: torch.Tensor
    labels: torch.Tensor


class _Prepared(NamedTuple):
    """The part of a minibatch that the host prepares: the images at ``rows``, int64 (batch,).

    ``images`` is None where the device stores them. ``drawn`` are random numbers of
    :meth:`Augmentation.draw`; None for no further augmentation.
    """

    rows: torch.Tensor
    images: torch.Tensor | None
    drawn: torch.Tensor | None = None


class Batches:
    """The minibatches of a set of images, epoch by epoch.

    The last of an epoch has the remainder; a remainder of one image is skipped, since it has no
    batch statistics.

    Args:
        images: resized by :func:`~rlcnn.data.augment.bring_to_size`.
        augmentation: random changes, and the centre crop.
        batch_size: images in a minibatch.
        seed: seed of order and augmentation.
        device: device of the minibatches.
        workers: processes that prepare images, where whole batches are not prepared at once.

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
        self.images = images
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
        """Images in an epoch."""
        return len(self.images)

    @property
    def per_epoch(self) -> int:
        """Minibatches in an epoch."""
        full, rest = divmod(len(self.images), self._batch_size)
        return full + (rest > 1 or not full)

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """The training minibatches of one epoch, from number ``start`` on."""
        random = torch.Generator().manual_seed(derive_seed(self._seed, ORDER, number))
        order = torch.randperm(len(self.images), generator=random)
        parts = order.split(self._batch_size)[start : self.per_epoch]
        if self.images.image_shape and self._augmentation.batched:
            return self._on_device(self._drawn(parts, number, start))
        return self._on_device(self._one_by_one(parts, epoch=number))

    def held_out(self) -> Iterator[Batch]:
        """All images once, in order, without augmentation."""
        return self._unaugmented(torch.arange(len(self.images)).split(self._batch_size))

    def at(self, rows: torch.Tensor) -> Batch:
        """Some images without augmentation; ``rows``: int64 (batch,) on the CPU."""
        return next(self._unaugmented((rows,)))

    def _unaugmented(self, parts: tuple[torch.Tensor, ...]) -> Iterator[Batch]:
        if not self.images.image_shape:
            yield from self._on_device(self._one_by_one(parts))
            return
        for batch in self._on_device(_Prepared(rows, self._gather(rows)) for rows in parts):
            yield batch._replace(images=self._augmentation.held_out(batch.images))

    def _drawn(
        self, parts: tuple[torch.Tensor, ...], number: int, start: int
    ) -> Iterator[_Prepared]:
        assert self.images.image_shape
        size = self.images.image_shape[1:]
        for place, rows in enumerate(parts, start):
            random = torch.Generator().manual_seed(derive_seed(self._seed, AUGMENT, number, place))
            drawn = self._augmentation.draw(len(rows), size, random)
            yield _Prepared(rows, self._gather(rows), drawn)

    @property
    def on_device(self) -> bool:
        """Whether the device stores the pixels of all images, which are then not prefetched."""
        return self._stored is not None

    def gather(self, rows: torch.Tensor) -> torch.Tensor:
        """Images of one size, uint8; ``rows``, int64 (batch,), lie where the pixels are stored."""
        return (self.images if self._stored is None else self._stored).gather(rows)

    def _gather(self, rows: torch.Tensor) -> torch.Tensor | None:
        return None if self.on_device else self.gather(rows)

    def _on_device(self, prepared: Iterable[_Prepared]) -> Iterator[Batch]:
        for rows, images, drawn in self._prefetcher.prefetch(prepared):
            if images is None:
                images = self.gather(rows)
            if drawn is not None:
                images = self._augmentation.apply(images, drawn)
            yield Batch(images, self._labels[rows])

    def _one_by_one(
        self, parts: tuple[torch.Tensor, ...], epoch: int | None = None
    ) -> Iterator[_Prepared]:
        seeds = None if epoch is None else (self._seed, AUGMENT, epoch)
        loader = DataLoader(
            _OneByOne(self.images, self._augmentation, seeds),
            # Each "sample" is a whole minibatch.
            batch_size=None,
            sampler=[rows.tolist() for rows in parts],
            num_workers=self._workers,
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


class _OneByOne(Dataset[Any]):
    """Minibatches of images that are prepared one by one, or the error of an unreadable image.

    Images are augmented by their index and ``seeds``, or held out without them.
    """

    def __init__(
        self, images: LabelledImages, augmentation: Augmentation, seeds: tuple[int, ...] | None
    ) -> None:
        self._images, self._augmentation, self._seeds = images, augmentation, seeds

    def __getitem__(self, rows: list[int]) -> torch.Tensor | UserError:
        try:
            return torch.stack([self._prepared(row) for row in rows])
        except UserError as error:
            return error

    def _prepared(self, row: int) -> torch.Tensor:
        if self._seeds is None:
            return self._augmentation.held_out(self._images[row])
        return self._augmentation.image(self._images[row], derive_seed(*self._seeds, row))


def derive_seed(*entropy: int) -> int:
    """A seed below 2**63 for one purpose, :data:`ORDER` or :data:`AUGMENT`, of another seed."""
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]) >> 1


def _ignore_signals(_: int) -> None:
    """Ctrl-C reaches every process of a terminal; only the training process answers it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
