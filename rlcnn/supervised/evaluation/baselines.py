"""What an accuracy is worth: the same from no network, from an untrained one, and from pixels.

A task can be easy because one class is frequent, because any convolution shows it, or because a
few pixels do. Each has a baseline here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from rlcnn.accelerate.gradient_step import gradient_step
from rlcnn.accelerate.transfers import read_late, upload
from rlcnn.data.batches import Batches
from rlcnn.data.images import UNKNOWN, Task
from rlcnn.encoders import Encoder
from rlcnn.supervised.evaluation.metrics import held_out_figures, right_by_task
from rlcnn.supervised.optimization import classification_loss

# Adam's own rate; by then the loss on standardised features has settled.
_RATE, _EPOCHS, _BATCH = 1e-3, 15, 256

# Up to so many bytes, images read from files are held in memory for the epochs of one fit.
_HOLD_IN_MEMORY = 2 * 10**9


@dataclass(frozen=True)
class Baseline:
    """What an accuracy is set beside.

    Attributes:
        figures: ``test/top1`` and so on, as
            :func:`rlcnn.supervised.evaluation.metrics.held_out_figures` names them.
        right: bool (held-out images, tasks), as
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
    """All of them, by their names; arguments as :func:`linear_on_features`."""
    return {
        "majority class": majority(train.labels, test.labels, tasks),
        "random encoder": linear_on_features(encoder, train, test, tasks, seed, most),
        "linear on pixels": linear_on_pixels(train, test, tasks, seed, most),
    }


def majority(train: torch.Tensor, test: torch.Tensor, tasks: Sequence[Task]) -> Baseline:
    """Always the most frequent classes of the training images.

    Args:
        train: labels int64 (images, tasks).
        test: likewise, of the held-out images.
        tasks: theirs.
    """
    logits = []
    for column, task in enumerate(tasks):
        known = train[train[:, column] != UNKNOWN, column]
        counts = torch.bincount(known, minlength=len(task.classes)).float()
        logits.append(counts.expand(len(test), -1))
    return _judged(logits, test, tasks)


def linear_on_features(
    encoder: Encoder,
    train: Batches,
    test: Batches,
    tasks: Sequence[Task],
    seed: int,
    most: int = 0,
) -> Baseline:
    """A linear classifier on the features of an encoder that stays as it is.

    Args:
        encoder: freshly initialised, on the device of the batches.
        train: to fit on; without augmentation.
        test: held out.
        tasks: their tasks.
        seed: of the images that are drawn and of their order.
        most: images to fit on, of each game where there are several; 0 takes all.
    """
    encoder.eval()
    return _linear(lambda *drawn: _embedded(encoder, *drawn), train, test, tasks, seed, most)


def linear_on_pixels(
    train: Batches, test: Batches, tasks: Sequence[Task], seed: int, most: int = 0
) -> Baseline:
    """A linear classifier on the pixels themselves; arguments as :func:`linear_on_features`."""
    return _linear(_pixels, train, test, tasks, seed, most)


@dataclass(frozen=True)
class _Inputs:
    """What a linear classifier sees of images: for their numbers, inputs and labels."""

    count: int
    at: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]

    def parts(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        yield from map(self.at, torch.arange(self.count).split(_BATCH))


def _pixels(batches: Batches, rows: torch.Tensor) -> _Inputs:
    # As floats they would take four times the memory: never all at once.
    if batches.from_files:
        image = batches.at(rows[:1]).images
        if len(rows) * image.nbytes <= _HOLD_IN_MEMORY:
            parts = [batches.at(some) for some in rows.split(_BATCH)]
            images = torch.cat([part.images for part in parts])
            labels = torch.cat([part.labels for part in parts])

            def held(index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
                index = upload(index, images.device)
                return images[index].flatten(1).float(), labels[index]

            return _Inputs(len(rows), held)

    def at(index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        images, labels = batches.at(rows[index])
        return images.flatten(1).float(), labels

    return _Inputs(len(rows), at)


def _embedded(encoder: Encoder, batches: Batches, rows: torch.Tensor) -> _Inputs:
    seen = (batches.at(some) for some in rows.split(_BATCH))
    with torch.inference_mode():
        parts = [(encoder(images).float(), labels) for images, labels in seen]
        features = torch.cat([part for part, _ in parts])
    # Outside of inference mode, so that a classifier can be fitted to them.
    features, labels = features.clone(), torch.cat([labels for _, labels in parts])

    def at(index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        index = upload(index, features.device)
        return features[index], labels[index]

    return _Inputs(len(features), at)


def _linear(
    inputs: Callable[[Batches, torch.Tensor], _Inputs],
    train: Batches,
    test: Batches,
    tasks: Sequence[Task],
    seed: int,
    most: int,
) -> Baseline:
    """Fits tasks together that are asked of the same games, and judges all of them."""
    logits = [torch.zeros(len(test), len(task.classes)) for task in tasks]
    random = torch.Generator().manual_seed(seed)
    for games, columns in _fits(train):
        rows, judged = (_rows(batches, games) for batches in (train, test))
        order = torch.randperm(len(rows), generator=random)
        rows = rows[order[: most or None].sort().values]
        asked = [tasks[column] for column in columns]
        found = _fit(inputs(train, rows), inputs(test, judged), asked, columns, random)
        for column, scores in zip(columns, found, strict=True):
            logits[column][judged] = scores
    return _judged(logits, test.labels, tasks)


def _fits(batches: Batches) -> list[tuple[tuple[int, ...], list[int]]]:
    """The games of which something is known, and the tasks of which it is, by column.

    Most tasks are one game's own: in a fit over all games, their weights would be computed, and be
    zero, for each frame of the others.
    """
    columns: dict[tuple[int, ...], list[int]] = {}
    for column in range(batches.labels.shape[1]):
        known = batches.labels[:, column] != UNKNOWN
        games = () if batches.episodes is None else tuple(_numbers(batches.episodes.games[known]))
        columns.setdefault(games, []).append(column)
    return list(columns.items())


def _numbers(games: torch.Tensor) -> list[int]:
    return games.unique().tolist()


def _rows(batches: Batches, games: tuple[int, ...]) -> torch.Tensor:
    """The images of these games, in their order; all where there are no games."""
    if batches.episodes is None:
        return torch.arange(len(batches))
    return torch.isin(batches.episodes.games, torch.tensor(games)).nonzero()[:, 0]


def _fit(
    train: _Inputs,
    test: _Inputs,
    tasks: Sequence[Task],
    columns: list[int],
    random: torch.Generator,
) -> list[torch.Tensor]:
    """Logistic regression by Adam on standardised inputs: its logits on the test images."""
    mean, scale = _standardisation(train)
    # What never changes tells nothing, and of games that is much of the screen.
    changing = scale.nonzero()[:, 0]
    mean, scale = mean[changing], scale[changing]
    counts = [len(task.classes) for task in tasks]
    head = nn.Linear(len(changing), sum(counts)).to(mean.device)
    # At zero every class is as likely: nothing of the result hangs on a start.
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)

    def logits(inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        scores: torch.Tensor = head((inputs[:, changing] - mean) * scale)
        return scores.split(counts, dim=1)

    wanted = torch.tensor(columns, device=mean.device)
    optimizer = torch.optim.Adam(head.parameters(), lr=_RATE, fused=True)
    for epoch in range(_EPOCHS):
        for group in optimizer.param_groups:
            group["lr"] = _RATE * (1 - epoch / _EPOCHS)
        for index in torch.randperm(train.count, generator=random).split(_BATCH):
            inputs, labels = train.at(index)
            loss = classification_loss(logits(inputs), labels[:, wanted])
            gradient_step(loss, optimizer)
    with torch.inference_mode():
        found = (torch.cat(logits(inputs), dim=1) for inputs, _ in test.parts())
        every = torch.cat(list(read_late(found, mean.device)))
    return list(every.split(counts, dim=1))


def _standardisation(inputs: _Inputs) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean of each input and the reciprocal of its deviation; 0 for one that is constant."""
    total = squares = torch.zeros(())
    for part, _ in inputs.parts():
        total = total + part.double().sum(dim=0)
        squares = squares + part.double().square().sum(dim=0)
    mean = total / inputs.count
    deviation = (squares / inputs.count - mean.square()).clamp(min=0).sqrt()
    # Of pixels that hardly ever change, the few that do would be blown up out of all proportion.
    least = 0.01 * deviation.max().clamp(min=1e-12)
    scale = torch.where(deviation > least, 1 / deviation.clamp(min=1e-12), 0.0)
    return mean.float(), scale.float()


def _judged(
    logits: Sequence[torch.Tensor], labels: torch.Tensor, tasks: Sequence[Task]
) -> Baseline:
    figures = held_out_figures(logits, labels, tasks)
    # A majority's logits are counts, whose loss says nothing.
    del figures["test/loss"]
    return Baseline(figures, right_by_task(logits, labels))
