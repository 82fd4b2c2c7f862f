"""Baselines of an accuracy: the majority class, and linear classifiers without training.

A task can be easy because one class is frequent, because any convolution makes it linear, or
because a few pixels do. Each has a baseline here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch

from rlcnn.accelerate.transfers import upload
from rlcnn.data.batches import Batches
from rlcnn.data.images import MAX_BYTES_IN_MEMORY, UNKNOWN, Task
from rlcnn.encoders import Encoder
from rlcnn.supervised.evaluation.linear import BATCH, Inputs, fit_by_adam
from rlcnn.supervised.evaluation.metrics import held_out_figures, right_by_task


@dataclass(frozen=True)
class Baseline:
    """Results of a baseline.

    Attributes:
        figures: ``test/top1`` and so on, named as by
            :func:`rlcnn.supervised.evaluation.metrics.held_out_figures`.
        right: bool (held-out images, tasks), from
            :func:`rlcnn.supervised.evaluation.metrics.right_by_task`.
    """

    figures: dict[str, float]
    right: torch.Tensor


def fit_baselines(
    encoder: Encoder,
    train: Batches,
    test: Batches,
    tasks: Sequence[Task],
    *,
    seed: int,
    most: int = 0,
) -> dict[str, Baseline]:
    """All baselines by name; arguments as :func:`linear_on_features`."""
    return {
        "majority class": majority(train.labels, test.labels, tasks),
        "random encoder": linear_on_features(encoder, train, test, tasks, seed, most),
        "linear on pixels": linear_on_pixels(train, test, tasks, seed, most),
    }


def majority(train: torch.Tensor, test: torch.Tensor, tasks: Sequence[Task]) -> Baseline:
    """Always predicts the most frequent class of the training images.

    ``train`` and ``test`` are labels, int64 (images, tasks).
    """
    logits = []
    for column, task in enumerate(tasks):
        known = train[train[:, column] != UNKNOWN, column]
        counts = torch.bincount(known, minlength=len(task.classes)).float()
        logits.append(counts.expand(len(test), -1))
    return _baseline(logits, test, tasks)


def linear_on_features(
    encoder: Encoder,
    train: Batches,
    test: Batches,
    tasks: Sequence[Task],
    seed: int,
    most: int = 0,
) -> Baseline:
    """A linear classifier on the features of an encoder, which is not trained.

    Args:
        encoder: a freshly initialised encoder, on the device of the batches.
        train: images to fit on, without augmentation.
        test: held-out images.
        tasks: their tasks.
        seed: seed of the choice of images and of their order.
        most: greatest number of images to fit on, for each game where there are several; 0 takes
            all.
    """
    encoder.eval()

    def features(batches: Batches, rows: torch.Tensor) -> Inputs:
        images = (batches.at(part) for part in rows.split(BATCH))
        with torch.inference_mode():
            encoded = _cat((encoder(part.images).float(), part.labels) for part in images)
        # Copies outside of inference mode, so that autograd accepts them.
        return _stored(*(tensor.clone() for tensor in encoded))

    return _linear(features, train, test, tasks, seed, most)


def linear_on_pixels(
    train: Batches, test: Batches, tasks: Sequence[Task], seed: int, most: int = 0
) -> Baseline:
    """A linear classifier on the pixels; arguments as :func:`linear_on_features`."""
    return _linear(_pixels, train, test, tasks, seed, most)


def _pixels(batches: Batches, rows: torch.Tensor) -> Inputs:
    # Floats take four times the memory of uint8, so only a minibatch is converted at once.
    if batches.from_files and len(rows) * batches.at(rows[:1]).images.nbytes <= MAX_BYTES_IN_MEMORY:
        return _stored(*_cat(batches.at(part) for part in rows.split(BATCH)))

    def at(index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        images, labels = batches.at(rows[index])
        return images.flatten(1).float(), labels

    return Inputs(len(rows), at)


def _cat(
    parts: Iterable[tuple[torch.Tensor, torch.Tensor]],
) -> tuple[torch.Tensor, torch.Tensor]:
    inputs, labels = zip(*parts, strict=True)
    return torch.cat(inputs), torch.cat(labels)


def _stored(inputs: torch.Tensor, labels: torch.Tensor) -> Inputs:
    def at(index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        index = upload(index, inputs.device)
        return inputs[index].flatten(1).float(), labels[index]

    return Inputs(len(inputs), at)


def _linear(
    make_inputs: Callable[[Batches, torch.Tensor], Inputs],
    train: Batches,
    test: Batches,
    tasks: Sequence[Task],
    seed: int,
    most: int,
) -> Baseline:
    """Fits tasks of the same games together."""
    logits = [torch.zeros(len(test), len(task.classes)) for task in tasks]
    random = torch.Generator().manual_seed(seed)
    for games, columns in _columns_by_games(train).items():
        rows, test_rows = (_rows(batches, games) for batches in (train, test))
        order = torch.randperm(len(rows), generator=random)
        rows = rows[order[: most or None].sort().values]
        classes = [len(tasks[column].classes) for column in columns]
        inputs = make_inputs(train, rows), make_inputs(test, test_rows)
        fitted = fit_by_adam(*inputs, classes, columns, random)
        for column, scores in zip(columns, fitted, strict=True):
            logits[column][test_rows] = scores
    return _baseline(logits, test.labels, tasks)


def _columns_by_games(batches: Batches) -> dict[tuple[int, ...], list[int]]:
    """Games -> the columns of the tasks whose labels are known for these games.

    Most tasks belong to one game. In a fit over all games, the frames of the others would only
    cost time.
    """
    columns: dict[tuple[int, ...], list[int]] = {}
    for column in range(batches.labels.shape[1]):
        games: tuple[int, ...] = ()
        if batches.episodes is not None:
            known = batches.labels[:, column] != UNKNOWN
            games = tuple(batches.episodes.games[known].unique().tolist())
        columns.setdefault(games, []).append(column)
    return columns


def _rows(batches: Batches, games: tuple[int, ...]) -> torch.Tensor:
    """The images of these games, in order; all images where there are no games."""
    if batches.episodes is None:
        return torch.arange(len(batches))
    return torch.isin(batches.episodes.games, torch.tensor(games)).nonzero()[:, 0]


def _baseline(
    logits: Sequence[torch.Tensor], labels: torch.Tensor, tasks: Sequence[Task]
) -> Baseline:
    figures = held_out_figures(logits, labels, tasks)
    # The majority's logits are counts, whose loss has no meaning.
    del figures["test/loss"]
    return Baseline(figures, right_by_task(logits, labels))
