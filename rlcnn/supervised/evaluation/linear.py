"""Linear classifiers by scikit-learn: exact fits that choose their regularisation.

They take one task whose features fit into memory.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from envs.errors import UserError
from rlcnn.data.images import Episodes
from rlcnn.supervised.evaluation.metrics import accuracy_interval

Method = Literal["svm", "linear"]
METHODS: tuple[Method, ...] = ("svm", "linear")

Features = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

# Values of C to choose from, and the share of the training images that chooses.
_CHOICES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
_VALIDATION_SHARE = 0.2


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
