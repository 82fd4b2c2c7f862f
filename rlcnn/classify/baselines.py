"""What an accuracy is worth: the same from no network, from an untrained one, and from pixels.

A task can be easy because one class is frequent, because any convolution shows it, or because a
few pixels do. Each has a baseline here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn

from rlcnn.classify.batches import Batches
from rlcnn.classify.images import UNKNOWN, Task
from rlcnn.classify.optimization import classification_loss
from rlcnn.classify.trainer import held_out_figures
from rlcnn.encoders import Encoder

# Adam's own rate; by then the loss on standardised features has settled.
_RATE, _EPOCHS, _BATCH = 1e-3, 15, 256

Features = Callable[[torch.Tensor], torch.Tensor]


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

    def embed(images: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return encoder(images).float()

    return _linear(embed, encoder.features_dim, train, test, tasks, seed)


def linear_on_pixels(
    train: Batches, test: Batches, tasks: Sequence[Task], seed: int
) -> dict[str, float]:
    """A linear classifier on the pixels themselves; arguments as :func:`linear_on_features`."""
    first = next(iter(test.held_out())).images[0]
    return _linear(lambda images: images.flatten(1), first.numel(), train, test, tasks, seed)


def _linear(
    features: Features,
    width: int,
    train: Batches,
    test: Batches,
    tasks: Sequence[Task],
    seed: int,
) -> dict[str, float]:
    """Logistic regression by Adam on standardised features; its last state is judged."""
    fitted, labels = _collect(features, train)
    mean, scale = _standardisation(fitted)
    counts = [len(task.classes) for task in tasks]
    random = torch.Generator().manual_seed(seed)
    head = nn.Linear(width, sum(counts)).to(fitted.device)
    # At zero every class is as likely: nothing of the result hangs on a start.
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    optimizer = torch.optim.Adam(head.parameters(), lr=_RATE)
    for epoch in range(_EPOCHS):
        for group in optimizer.param_groups:
            group["lr"] = _RATE * (1 - epoch / _EPOCHS)
        for index in torch.randperm(len(fitted), generator=random).split(_BATCH):
            inputs = (fitted[index].float() - mean) * scale
            loss = classification_loss(head(inputs).split(counts, dim=1), labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    held_out, truth = _collect(features, test)
    with torch.inference_mode():
        parts = [head((part.float() - mean) * scale) for part in held_out.split(_BATCH)]
    logits = torch.cat(parts).split(counts, dim=1)
    return _accuracies(held_out_figures([x.cpu() for x in logits], truth.cpu(), tasks))


def _collect(features: Features, batches: Batches) -> tuple[torch.Tensor, torch.Tensor]:
    """The features of all images, and their labels; pixels stay single bytes."""
    parts = [(features(batch.images), batch.labels) for batch in batches.held_out()]
    return torch.cat([part for part, _ in parts]), torch.cat([labels for _, labels in parts])


def _standardisation(features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean of each feature and the reciprocal of its deviation; 0 for one that is constant."""
    total = torch.zeros(features.shape[1], dtype=torch.float64, device=features.device)
    squares = total.clone()
    for part in _parts(features):
        total += part.sum(dim=0)
        squares += part.square().sum(dim=0)
    mean = total / len(features)
    deviation = (squares / len(features) - mean.square()).clamp(min=0).sqrt()
    # Of pixels that hardly ever change, the few that do would be blown up out of all proportion.
    least = 0.01 * deviation.max().clamp(min=1e-12)
    scale = torch.where(deviation > least, 1 / deviation.clamp(min=1e-12), 0.0)
    return mean.float(), scale.float()


def _parts(features: torch.Tensor) -> Iterator[torch.Tensor]:
    yield from (part.double() for part in features.split(1024))


def _accuracies(figures: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in figures.items() if name != "test/loss"}
