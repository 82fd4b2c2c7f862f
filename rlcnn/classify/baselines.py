"""What an accuracy is worth: the same from no network, from an untrained one, and from pixels.

A task can be easy because one class is frequent, because any convolution shows it, or because a
few pixels do. Each has a baseline here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from rlcnn.classify.batches import Batches
from rlcnn.classify.images import UNKNOWN, Task
from rlcnn.classify.optimization import classification_loss
from rlcnn.classify.trainer import held_out_figures
from rlcnn.encoders import Encoder

# Adam's own rate; by then the loss on standardised features has settled.
_RATE, _EPOCHS, _BATCH = 1e-3, 15, 256


def majority(train: torch.Tensor, test: torch.Tensor, tasks: Sequence[Task]) -> dict[str, float]:
    """Always the most frequent classes of the training images.

    Args:
        train: labels int64 (images, tasks).
        test: likewise, of the held-out images.
        tasks: theirs.

    Returns:
        ``test/top1`` and so on, as :func:`rlcnn.classify.trainer.held_out_figures` names them.
    """
    logits = []
    for column, task in enumerate(tasks):
        known = train[train[:, column] != UNKNOWN, column]
        counts = torch.bincount(known, minlength=len(task.classes)).float()
        logits.append(counts.expand(len(test), -1))
    return _accuracies(held_out_figures(logits, test, tasks))


def linear_on_features(
    encoder: Encoder, train: Batches, test: Batches, tasks: Sequence[Task], seed: int
) -> dict[str, float]:
    """A linear classifier on the features of an encoder that stays as it is.

    Args:
        encoder: freshly initialised, on the device of the batches.
        train: to fit on; without augmentation.
        test: held out.
        tasks: their tasks.
        seed: of the classifier's start and of the order of the images.
    """
    encoder.eval()
    inputs = (_embedded(encoder, train), _embedded(encoder, test))
    return _linear(*inputs, tasks, seed)


def linear_on_pixels(
    train: Batches, test: Batches, tasks: Sequence[Task], seed: int
) -> dict[str, float]:
    """A linear classifier on the pixels themselves; arguments as :func:`linear_on_features`."""
    return _linear(_pixels(train), _pixels(test), tasks, seed)


@dataclass(frozen=True)
class _Inputs:
    """What a linear classifier sees of images: for their numbers, inputs and labels."""

    count: int
    at: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]

    def parts(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        yield from map(self.at, torch.arange(self.count).split(_BATCH))


def _pixels(batches: Batches) -> _Inputs:
    def at(index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        images, labels = batches.at(index)
        # As floats they would take four times the memory: never all at once.
        return images.flatten(1).float(), labels

    return _Inputs(len(batches), at)


def _embedded(encoder: Encoder, batches: Batches) -> _Inputs:
    with torch.inference_mode():
        parts = [(encoder(images).float(), labels) for images, labels in batches.held_out()]
        features = torch.cat([part for part, _ in parts])
    # Outside of inference mode, so that a classifier can be fitted to them.
    features, labels = features.clone(), torch.cat([labels for _, labels in parts])
    return _Inputs(len(features), lambda index: (features[index], labels[index]))


def _linear(train: _Inputs, test: _Inputs, tasks: Sequence[Task], seed: int) -> dict[str, float]:
    """Logistic regression by Adam on standardised inputs; its last state is judged."""
    mean, scale = _standardisation(train)
    counts = [len(task.classes) for task in tasks]
    head = nn.Linear(len(mean), sum(counts)).to(mean.device)
    # At zero every class is as likely: nothing of the result hangs on a start.
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    optimizer = torch.optim.Adam(head.parameters(), lr=_RATE)
    random = torch.Generator().manual_seed(seed)
    for epoch in range(_EPOCHS):
        for group in optimizer.param_groups:
            group["lr"] = _RATE * (1 - epoch / _EPOCHS)
        for index in torch.randperm(train.count, generator=random).split(_BATCH):
            inputs, labels = train.at(index)
            logits = head((inputs - mean) * scale).split(counts, dim=1)
            loss = classification_loss(logits, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.inference_mode():
        judged = [(head((inputs - mean) * scale).cpu(), labels) for inputs, labels in test.parts()]
    held_out = torch.cat([logits for logits, _ in judged]).split(counts, dim=1)
    truth = torch.cat([labels for _, labels in judged]).cpu()
    return _accuracies(held_out_figures(held_out, truth, tasks))


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


def _accuracies(figures: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in figures.items() if name != "test/loss"}
