"""Baselines of an accuracy: the majority class, and linear classifiers without training.

A task can be easy because one class is frequent, because any convolution makes it linear, or
because a few pixels do. Each has a baseline here. Adam fits the linear classifiers of many tasks at
once, on the device, to inputs of any number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

from rlcnn.accelerate.gradient_step import gradient_step
from rlcnn.accelerate.transfers import read_late, upload
from rlcnn.data.batches import Batches
from rlcnn.data.images import MAX_BYTES_IN_MEMORY, UNKNOWN, LabelledImages, Task
from rlcnn.encoders import Encoder
from rlcnn.supervised.evaluation.metrics import held_out_figures, right_by_task
from rlcnn.supervised.optimization import classification_loss

# Adam's default rate; after so many epochs the loss on standardised features no longer falls.
_RATE, _EPOCHS, _BATCH = 1e-3, 15, 256


class Baseline(NamedTuple):
    """Results of a baseline on the held-out images.

    ``figures`` are those of :func:`~rlcnn.supervised.evaluation.metrics.held_out_figures` but the
    loss; ``right``, bool (images, tasks), are its correct answers.
    """

    figures: dict[str, float]
    right: torch.Tensor


def fit_baselines(
    encoder: Encoder, train: Batches, test: Batches, *, seed: int, most: int = 0
) -> dict[str, Baseline]:
    """All baselines by name; arguments as :func:`fit_linear`, with a random encoder."""
    return {
        "majority class": majority(train.images.labels, test.images.labels, train.images.tasks),
        "random encoder": fit_linear(encoder, train, test, seed=seed, most=most),
        "linear on pixels": fit_linear(None, train, test, seed=seed, most=most),
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


def fit_linear(
    encoder: Encoder | None, train: Batches, test: Batches, *, seed: int, most: int = 0
) -> Baseline:
    """Logistic regression on the features of an encoder, which is not trained, or on pixels.

    Tasks of the same games are fitted together.

    Args:
        encoder: an encoder on the device of the batches; None for pixels.
        train: images to fit on, without augmentation.
        test: held-out images.
        seed: seed of the choice of images and of their order.
        most: greatest number of images to fit on, for each game where there are several; 0 takes
            all.
    """
    tasks = train.images.tasks
    logits = [torch.zeros(len(test.images), len(task.classes)) for task in tasks]
    random = torch.Generator().manual_seed(seed)
    for games, columns in _columns_by_games(train.images).items():
        rows, test_rows = (_rows(batches.images, games) for batches in (train, test))
        order = torch.randperm(len(rows), generator=random)
        rows = rows[order[: most or None].sort().values]
        scores = _fit_by_adam(
            _inputs(encoder, train, rows),
            _inputs(encoder, test, test_rows),
            train.images.labels[rows][:, columns],
            [len(tasks[column].classes) for column in columns],
            random,
        )
        for column, found in zip(columns, scores, strict=True):
            logits[column][test_rows] = found
    return _baseline(logits, test.images.labels, tasks)


def _columns_by_games(images: LabelledImages) -> dict[tuple[int, ...], list[int]]:
    """Games -> the columns of the tasks whose labels are known for these games.

    Most tasks belong to one game. In a fit over all games, the frames of the others would only
    cost time.
    """
    columns: dict[tuple[int, ...], list[int]] = {}
    for column in range(len(images.tasks)):
        games: tuple[int, ...] = ()
        if images.episodes is not None:
            known = images.labels[:, column] != UNKNOWN
            games = tuple(images.episodes.games[known].unique().tolist())
        columns.setdefault(games, []).append(column)
    return columns


def _rows(images: LabelledImages, games: tuple[int, ...]) -> torch.Tensor:
    """The images of these games, in order; all images where there are no games."""
    if images.episodes is None:
        return torch.arange(len(images))
    return torch.isin(images.episodes.games, torch.tensor(games)).nonzero()[:, 0]


def _baseline(
    logits: Sequence[torch.Tensor], labels: torch.Tensor, tasks: Sequence[Task]
) -> Baseline:
    figures = held_out_figures(logits, labels, tasks)
    # The majority's logits are counts, whose loss has no meaning.
    del figures["test/loss"]
    return Baseline(figures, right_by_task(logits, labels))


@dataclass(frozen=True)
class _Inputs:
    """Inputs of a linear classifier for ``count`` images.

    ``at``: indices int64 (n,) on the CPU -> inputs float32 (n, d) on the device.
    """

    count: int
    at: Callable[[torch.Tensor], torch.Tensor]

    def batches(self) -> Iterator[torch.Tensor]:
        yield from map(self.at, torch.arange(self.count).split(_BATCH))


def _inputs(encoder: Encoder | None, batches: Batches, rows: torch.Tensor) -> _Inputs:
    """The features of some images, or their pixels."""
    parts = (batches.at(part).images for part in rows.split(_BATCH))
    decodes = batches.images.image_shape is None
    if encoder is not None:
        with torch.inference_mode():
            features = torch.cat([encoder.eval()(images).float() for images in parts])
        # A copy outside of inference mode, so that autograd accepts it.
        stored = features.clone()
    elif decodes and len(rows) * batches.at(rows[:1]).images.nbytes <= MAX_BYTES_IN_MEMORY:
        stored = torch.cat(list(parts))
    else:
        # Floats take four times the memory of uint8, so only a minibatch is converted at once.
        return _Inputs(len(rows), lambda index: batches.at(rows[index]).images.flatten(1).float())
    return _Inputs(len(rows), lambda index: stored[upload(index, stored.device)].flatten(1).float())


def _fit_by_adam(
    train: _Inputs, test: _Inputs, labels: torch.Tensor, classes: list[int], random: torch.Generator
) -> tuple[torch.Tensor, ...]:
    """Fits logistic regression for several tasks by Adam on standardised inputs.

    ``labels`` are int64 (training images, tasks). ``random`` determines the order of minibatches.

    Returns:
        For each task logits of the test inputs, float32 (n, classes) on the CPU.
    """
    mean, scale = _standardisation(train)
    # Constant inputs carry no information; in games, they are a large part of the screen.
    changing = scale.nonzero()[:, 0]
    mean, scale = mean[changing], scale[changing]
    labels = labels.to(mean.device)
    head = nn.Linear(len(changing), sum(classes)).to(mean.device)
    # At zero all classes are equally likely, and the result does not depend on an initialisation.
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)

    def logits(inputs: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = head((inputs[:, changing] - mean) * scale)
        return scores

    optimizer = torch.optim.Adam(head.parameters(), lr=_RATE, fused=True)
    for epoch in range(_EPOCHS):
        for group in optimizer.param_groups:
            group["lr"] = _RATE * (1 - epoch / _EPOCHS)
        for index in torch.randperm(train.count, generator=random).split(_BATCH):
            scores = logits(train.at(index)).split(classes, dim=1)
            target = labels[upload(index, labels.device)]
            gradient_step(classification_loss(scores, target), optimizer)
    with torch.inference_mode():
        found = read_late(map(logits, test.batches()), mean.device)
        return torch.cat(list(found)).split(classes, dim=1)


def _standardisation(inputs: _Inputs) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean of each input and the reciprocal of its deviation; 0 for a constant input."""
    total = squares = torch.zeros(())
    for part in inputs.batches():
        total = total + part.double().sum(dim=0)
        squares = squares + part.double().square().sum(dim=0)
    mean = total / inputs.count
    deviation = (squares / inputs.count - mean.square()).clamp(min=0).sqrt()
    # Rare changes of nearly constant pixels would become huge.
    least = 0.01 * deviation.max().clamp(min=1e-12)
    scale = torch.where(deviation > least, 1 / deviation.clamp(min=1e-12), 0.0)
    return mean.float(), scale.float()
