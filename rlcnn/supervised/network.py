"""What a pretraining trains: an encoder, with all that learns beside it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from os import PathLike
from typing import Any, NamedTuple, Protocol

import torch

from rlcnn.data.batches import Batches
from rlcnn.encoders import Encoder
from rlcnn.encoders.freezing import PartlyFrozen


class Examples(Protocol):
    """A minibatch on the device."""

    @property
    def labels(self) -> torch.Tensor:
        """int64 (examples, tasks)."""


class Minibatches(Protocol):
    """Examples in minibatches, epoch by epoch; their order follows from a seed alone."""

    def __len__(self) -> int:
        """Examples in an epoch."""

    @property
    def per_epoch(self) -> int:
        """Minibatches in an epoch."""

    def epoch(self, number: int, start: int = 0) -> Iterator[Examples]:
        """The training minibatches of one epoch, from number ``start`` on."""


class Measures(NamedTuple):
    """What a network measures on a minibatch.

    Attributes:
        loss: scalar, to be minimised.
        ratios: of each name in ``measured`` a numerator and a denominator, both scalars without
            gradients. Sums of both over minibatches give the mean.
    """

    loss: torch.Tensor
    ratios: list[tuple[torch.Tensor, torch.Tensor]]


class PretrainingNetwork(PartlyFrozen, ABC):
    """An encoder with everything that is trained beside it, and what it learns from a minibatch.

    Attributes:
        encoder: the encoder.
        measured: names of the ratios of :meth:`measure`.
    """

    encoder: Encoder
    measured: tuple[str, ...]

    @abstractmethod
    def measure(self, batch: Any) -> Measures:
        """The loss of a minibatch of the network's kind, and its ratios."""

    @abstractmethod
    def evaluate(self, test: Any) -> dict[str, float]:
        """Figures on held-out minibatches, named ``test/...``; in evaluation mode."""

    @abstractmethod
    def held_out_logits(self, test: Batches) -> tuple[torch.Tensor, ...] | None:
        """Logits of held-out images, (images, classes) for each task, on the CPU; in evaluation
        mode. None if the network classifies nothing.
        """

    @abstractmethod
    def save(self, path: str | PathLike[str], about: Mapping[str, Any]) -> None:
        """Writes a safetensors file that is a weights file of the encoder.

        ``about`` are JSON values to store with the weights.

        Raises:
            UserError: the disk is full or the file cannot be written; an older file does not
                change.
        """

    def after_update(self) -> None:
        """Called after each optimiser step."""
