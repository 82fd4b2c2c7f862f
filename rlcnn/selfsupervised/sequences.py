"""Minibatches of sequences of consecutive observations, augmented."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch

from envs.errors import UserError
from rlcnn.accelerate.transfers import Prefetcher
from rlcnn.data.batches import AUGMENT, ORDER, Batches, derive_seed
from rlcnn.data.drq import DrqNumbers, apply_drq, draw_drq
from rlcnn.data.images import UNKNOWN, StackedFrames
from rlcnn.selfsupervised.views import SequenceBatch


class _Prepared(NamedTuple):
    """The part of a minibatch that the host prepares.

    Attributes:
        rows: int64 (batch,), the first observations.
        images: all observations, uint8 (batch * len(offsets), ...); None where the device stores
            them.
        offsets: and ``factors``: random numbers of :func:`draw_drq`; None for no augmentation.
    """

    rows: torch.Tensor
    images: torch.Tensor | None
    offsets: torch.Tensor | None = None
    factors: torch.Tensor | None = None


class SequenceBatches:
    """The minibatches of all sequences in games, epoch by epoch; DrQ augments the training ones.

    A sequence begins at each observation that is followed by enough others in its game. Each of its
    observations is augmented by draws of its own. The last minibatch of an epoch has the remainder;
    a remainder of one sequence is skipped.

    Attributes:
        singles: single observations, without augmentation.
        starts: int64 (sequences,), the rows of the first observations.
        device: device of the minibatches.
    """

    def __init__(
        self,
        singles: Batches,
        offsets: Sequence[int],
        *,
        batch_size: int,
        seed: int,
        device: torch.device,
    ) -> None:
        """Finds the sequences.

        Args:
            singles: batches of :class:`StackedFrames` with actions.
            offsets: the observations of a sequence, in steps after the first; 0 comes first.
            batch_size: sequences in a minibatch.
            seed: seed of order and augmentation.
            device: device of the minibatches.

        Raises:
            UserError: there are fewer than two sequences.
        """
        frames = singles.images
        assert isinstance(frames, StackedFrames)
        assert frames.actions is not None
        self.singles, self.device = singles, device
        self._offsets, self._steps = tuple(offsets), max(offsets)
        self._batch_size, self._seed = batch_size, seed
        self.starts = sequence_starts(frames, self._steps)
        if len(self.starts) < 2:
            raise UserError(
                f"the {len(frames):,} frames have {len(self.starts)} sequences of {self._steps + 1}"
                " observations, and at least 2 are needed: play longer games by"
                " --frames.max-episode-steps, or look less far ahead by --jumps or --contrast-steps"
            )
        self._actions, self._labels = (
            values.to(device) for values in (frames.actions.taken, frames.labels)
        )
        # Of the observations, where the pixels are stored, and of the actions, on the device.
        places = torch.tensor(self._offsets)
        self._places = places.to(device) if singles.on_device else places
        self._following = torch.arange(1, self._steps + 1).to(device)
        self._prefetcher = Prefetcher(device)

    def __len__(self) -> int:
        """Sequences in an epoch."""
        return len(self.starts)

    @property
    def per_epoch(self) -> int:
        """Minibatches in an epoch."""
        full, rest = divmod(len(self.starts), self._batch_size)
        return full + (rest > 1 or not full)

    def epoch(self, number: int, start: int = 0) -> Iterator[SequenceBatch]:
        """The training minibatches of one epoch, from number ``start`` on."""
        parts = self._order(number).split(self._batch_size)[start : self.per_epoch]
        return self._on_device(self._drawn(parts, number, start))

    def held_out(self) -> Iterator[SequenceBatch]:
        """All sequences once, without augmentation, always in the same minibatches.

        They are shuffled as for training, since objectives compare the sequences of a minibatch.
        """
        parts = self._order(0).split(self._batch_size)
        return self._on_device(_Prepared(rows, self._gather(rows)) for rows in parts)

    def _order(self, number: int) -> torch.Tensor:
        random = torch.Generator().manual_seed(derive_seed(self._seed, ORDER, number))
        return self.starts[torch.randperm(len(self.starts), generator=random)]

    def _drawn(self, parts: Sequence[torch.Tensor], number: int, start: int) -> Iterator[_Prepared]:
        for place, rows in enumerate(parts, start):
            seed = derive_seed(self._seed, AUGMENT, number, place)
            numbers = draw_drq(len(rows) * len(self._offsets), torch.Generator().manual_seed(seed))
            yield _Prepared(rows, self._gather(rows), *numbers)

    def _gather(self, rows: torch.Tensor) -> torch.Tensor | None:
        return None if self.singles.on_device else self.singles.gather(self._all(rows))

    def _all(self, rows: torch.Tensor) -> torch.Tensor:
        return (rows[:, None] + self._places).flatten()

    def _on_device(self, prepared: Iterable[_Prepared]) -> Iterator[SequenceBatch]:
        for rows, images, offsets, factors in self._prefetcher.prefetch(prepared):
            if images is None:
                images = self.singles.gather(self._all(rows))
            if offsets is not None and factors is not None:
                images = apply_drq(images, DrqNumbers(offsets, factors))
            yield SequenceBatch(
                images.unflatten(0, (len(rows), -1)),
                self._actions[rows[:, None] + self._following],
                self._labels[rows],
                self._offsets,
            )


def sequence_starts(frames: StackedFrames, steps: int) -> torch.Tensor:
    """Rows of the observations that ``steps`` others follow by known actions, int64 (sequences,).

    ``frames`` are consecutive observations with their actions.
    """
    assert frames.actions is not None
    assert frames.episodes is not None
    count = len(frames) - steps
    if count <= 0:
        return torch.zeros(0, dtype=torch.int64)
    ids, known = frames.episodes.ids, (frames.actions.taken != UNKNOWN).long()
    together = ids[:count] == ids[steps:]
    # The actions before the observations after the first.
    sums = torch.cat([torch.zeros(1, dtype=torch.int64), known.cumsum(0)])
    taken = sums[steps + 1 :] - sums[1 : count + 1]
    return (together & (taken == steps)).nonzero()[:, 0]
