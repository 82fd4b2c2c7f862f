"""Linear classifiers on fixed inputs: by scikit-learn on features, or by Adam on minibatches.

scikit-learn's are exact, and choose their regularisation; they take one task whose features fit
into memory. Adam fits many tasks at once, on the device, to inputs of any number.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from envs.errors import UserError
from rlcnn.accelerate.gradient_step import gradient_step
from rlcnn.accelerate.transfers import read_late
from rlcnn.data.images import Episodes
from rlcnn.supervised.evaluation.metrics import accuracy_interval
from rlcnn.supervised.evaluation.options import Method
from rlcnn.supervised.optimization import classification_loss

Features = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

# Values of C to choose from, and the share of the training images that chooses.
_CHOICES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
_VALIDATION_SHARE = 0.2

# Adam's default rate; after so many epochs the loss on standardised features no longer falls.
_RATE, _EPOCHS = 1e-3, 15

BATCH = 256
"""Inputs in a minibatch of :func:`fit_by_adam`."""


@dataclass(frozen=True)
class Fit:
    """A linear classifier on features, and its results on test images.

    Attributes:
        correct: bool (test images,).
        c: the chosen regularisation (scikit-learn's C: smaller is stronger).
        converged: whether the final fit reached its tolerance.
        episodes: which test images depend on each other; None where none do.
    """

    correct: npt.NDArray[np.bool_]
    c: float
    converged: bool
    episodes: Episodes | None = None

    @property
    def accuracy(self) -> float:
        """Share of correct test images."""
        return float(self.correct.mean())

    @property
    def interval(self) -> tuple[float, float]:
        """Its :func:`~rlcnn.supervised.evaluation.metrics.accuracy_interval`."""
        return accuracy_interval(torch.from_numpy(self.correct), self.episodes)

    def to_json(self) -> dict[str, Any]:
        """The results as JSON values."""
        return {
            "accuracy": self.accuracy,
            "interval": list(self.interval),
            "c": self.c,
            "converged": self.converged,
        }


def fit(
    method: Method,
    train: Features,
    train_labels: Labels,
    test: Features,
    test_labels: Labels,
    *,
    seed: int = 0,
    episodes: Episodes | None = None,
) -> Fit:
    """Fits a linear classifier on standardised features (images, features) and tests it.

    "svm" is linear, one class against the rest, with squared hinge loss; "linear" is logistic
    regression over all classes. Both have an L2 penalty. A fifth of the training images, drawn by
    ``seed``, chooses C, the smallest of equally good ones; the final fit uses all of them. Each
    class has at least two training images.

    Raises:
        UserError: the features are not finite.
    """
    from sklearn.model_selection import train_test_split

    for part in (train, test):
        if not np.isfinite(part).all():
            raise UserError("the encoder's features are not all finite: nothing can be fitted")
    counts = np.unique(train_labels, return_counts=True)[1]
    rows, others = train_test_split(
        np.arange(len(train)),
        test_size=max(len(counts), round(_VALIDATION_SHARE * len(train))),
        random_state=seed,
        stratify=train_labels,
    )
    tried = _predictions(method, _CHOICES, train[rows], train_labels[rows], train[others])
    accuracies = [(predicted == train_labels[others]).mean() for predicted, _ in tried]
    # argmax takes the first of equal ones.
    best = _CHOICES[int(np.argmax(accuracies))]
    [(predicted, converged)] = _predictions(method, (best,), train, train_labels, test)
    return Fit(predicted == test_labels, best, converged, episodes)


def _predictions(
    method: Method, cs: Sequence[float], train: Features, labels: Labels, test: Features
) -> list[tuple[Labels, bool]]:
    """For each C, the predicted classes, and whether the fit reached its tolerance."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    scaler = StandardScaler().fit(train)
    train, test = scaler.transform(train), scaler.transform(test)
    model: Any
    if method == "svm":
        model = LinearSVC(dual="auto", random_state=0)
    else:
        # Each fit starts from the one before, which had a stronger penalty.
        model = LogisticRegression(max_iter=200, warm_start=True)
    predictions: list[tuple[Labels, bool]] = []
    for c in cs:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            model.set_params(C=c).fit(train, labels)
        converged = not any(issubclass(w.category, ConvergenceWarning) for w in caught)
        predictions.append((model.predict(test), converged))
    return predictions


@dataclass(frozen=True)
class Inputs:
    """Inputs of a linear classifier.

    Attributes:
        count: number of images.
        at: indices int64 (n,) -> inputs float32 (n, d) and labels int64 (n, tasks).
    """

    count: int
    at: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]

    def batches(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """All inputs and labels, in order."""
        yield from map(self.at, torch.arange(self.count).split(BATCH))


def fit_by_adam(
    train: Inputs,
    test: Inputs,
    classes: Sequence[int],
    columns: Sequence[int],
    random: torch.Generator,
) -> list[torch.Tensor]:
    """Fits logistic regression for several tasks by Adam on standardised inputs.

    ``classes`` and ``columns`` are the number of classes of each task and its column in the labels.
    ``random`` determines the order of minibatches.

    Returns:
        For each task logits of the test inputs, float32 (n, classes) on the CPU.
    """
    mean, scale = _standardisation(train)
    # Constant inputs carry no information; in games, they are a large part of the screen.
    changing = scale.nonzero()[:, 0]
    mean, scale = mean[changing], scale[changing]
    head = nn.Linear(len(changing), sum(classes)).to(mean.device)
    # At zero all classes are equally likely, and the result does not depend on an initialisation.
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)

    def logits(inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        scores: torch.Tensor = head((inputs[:, changing] - mean) * scale)
        return scores.split(list(classes), dim=1)

    wanted = torch.tensor(columns, device=mean.device)
    optimizer = torch.optim.Adam(head.parameters(), lr=_RATE, fused=True)
    for epoch in range(_EPOCHS):
        for group in optimizer.param_groups:
            group["lr"] = _RATE * (1 - epoch / _EPOCHS)
        for index in torch.randperm(train.count, generator=random).split(BATCH):
            inputs, labels = train.at(index)
            loss = classification_loss(logits(inputs), labels[:, wanted])
            gradient_step(loss, optimizer)
    with torch.inference_mode():
        scores = (torch.cat(logits(inputs), dim=1) for inputs, _ in test.batches())
        return list(torch.cat(list(read_late(scores, mean.device))).split(list(classes), dim=1))


def _standardisation(inputs: Inputs) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean of each input and the reciprocal of its deviation; 0 for a constant input."""
    total = squares = torch.zeros(())
    for part, _ in inputs.batches():
        total = total + part.double().sum(dim=0)
        squares = squares + part.double().square().sum(dim=0)
    mean = total / inputs.count
    deviation = (squares / inputs.count - mean.square()).clamp(min=0).sqrt()
    # Rare changes of nearly constant pixels would become huge.
    least = 0.01 * deviation.max().clamp(min=1e-12)
    scale = torch.where(deviation > least, 1 / deviation.clamp(min=1e-12), 0.0)
    return mean.float(), scale.float()
