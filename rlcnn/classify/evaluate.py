"""How well images are classified: top-k accuracy, confusions, worst errors; ensembles by mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from rlcnn.classify.images import UNKNOWN
from rlcnn.intervals import wilson_interval


def topk_correct(scores: torch.Tensor, labels: torch.Tensor, k: int = 1) -> torch.Tensor:
    """Whether the true class is among the ``k`` of highest score, image by image.

    Of classes with equal scores the first is taken for the highest, as ``argmax`` does: a network
    that tells nothing apart is right by chance only. One whose scores are no numbers is wrong.

    Args:
        scores: logits or probabilities (images, classes).
        labels: int64 (images,), 0 to classes - 1; ``UNKNOWN`` is never right.
        k: at least 1.

    Returns:
        bool (images,).
    """
    known = labels != UNKNOWN
    own = scores.gather(1, labels.clamp(min=0)[:, None])
    classes = torch.arange(scores.shape[1], device=scores.device)
    before = (scores > own) | ((scores == own) & (classes < labels[:, None]))
    return known & (before.sum(dim=1) < k) & ~scores.isnan().any(dim=1)


def topk_accuracy(scores: torch.Tensor, labels: torch.Tensor, k: int = 1) -> float:
    """Share of the images with a known label that :func:`topk_correct` finds right.

    Args:
        scores: logits or probabilities (images, classes).
        labels: int64 (images,), ``UNKNOWN`` where the class is not known.
        k: at least 1.

    Returns:
        0 to 1; NaN where no label is known.
    """
    known = int((labels != UNKNOWN).sum())
    return int(topk_correct(scores, labels, k).sum()) / known if known else float("nan")


def confusion_matrix(predicted: torch.Tensor, labels: torch.Tensor, classes: int) -> torch.Tensor:
    """How often each class was taken for each.

    Args:
        predicted: int64 (images,).
        labels: int64 (images,); images with the label ``UNKNOWN`` are left out.
        classes: how many there are.

    Returns:
        int64 (classes, classes): a row for each true class, a column for each predicted one.
    """
    known = labels != UNKNOWN
    cells = labels[known] * classes + predicted[known]
    return torch.bincount(cells, minlength=classes**2).view(classes, classes)


def mean_probabilities(members: Sequence[torch.Tensor]) -> torch.Tensor:
    """What an ensemble says: the mean of its members' probabilities (images, classes)."""
    return torch.stack(list(members)).mean(dim=0)


@dataclass(frozen=True)
class Evaluation:
    """What a network, or an ensemble, made of labelled images.

    Attributes:
        classes: their names, by index.
        labels: int64 (images,), each with a known class.
        probabilities: float32 (images, classes).
    """

    classes: tuple[str, ...]
    labels: torch.Tensor
    probabilities: torch.Tensor

    @property
    def predicted(self) -> torch.Tensor:
        """The most probable class of each image, int64 (images,)."""
        return self.probabilities.argmax(dim=1)

    def ks(self) -> tuple[int, ...]:
        """Of how many classes the true one is looked for: 1, and 5 where there are more."""
        return (1, 5) if len(self.classes) > 5 else (1,)

    def accuracy(self, k: int = 1) -> float:
        """Share of images whose class is among the ``k`` most probable."""
        return topk_accuracy(self.probabilities, self.labels, k)

    def worst(self, count: int) -> list[int]:
        """The misclassified images, those first whose true class was thought least probable."""
        wrong = ~topk_correct(self.probabilities, self.labels)
        true = self.probabilities.gather(1, self.labels[:, None])[:, 0]
        order = true.argsort(stable=True)
        return order[wrong[order]][:count].tolist()

    def occurring(self) -> list[int]:
        """The classes that an image has or was taken for; a thousand need not all occur."""
        return torch.cat((self.labels, self.predicted)).unique().tolist()

    def confusion(self) -> torch.Tensor:
        """:func:`confusion_matrix` of the classes of :meth:`occurring`, in that order."""
        matrix = confusion_matrix(self.predicted, self.labels, len(self.classes))
        occurring = torch.tensor(self.occurring())
        return matrix[occurring][:, occurring]

    def figures(self) -> dict[str, float | list[float]]:
        """``top1`` and ``top5``, each with its 95% interval (Wilson), as JSON values."""
        told: dict[str, float | list[float]] = {}
        for k in self.ks():
            right = int(topk_correct(self.probabilities, self.labels, k).sum())
            told[f"top{k}"] = right / len(self.labels)
            told[f"top{k}_interval"] = list(wilson_interval(right, len(self.labels)))
        return told

    def to_json(self) -> dict[str, Any]:
        """All but the probabilities, as JSON values."""
        occurring = self.occurring()
        matrix = self.confusion()
        return {
            "images": len(self.labels),
            **self.figures(),
            "confusion": {
                "class_indices": occurring,
                "classes": [self.classes[index] for index in occurring],
                "counts": matrix.tolist(),
            },
        }
