"""Metrics of classification: top-k accuracy with intervals, confusion matrix, worst errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from rlcnn.data.images import UNKNOWN, Episodes, Task
from rlcnn.stats.accuracy import clustered_interval, wilson_interval
from rlcnn.supervised.optimization import classification_loss


def topk_correct(scores: torch.Tensor, labels: torch.Tensor, k: int = 1) -> torch.Tensor:
    """Whether the true class is among the ``k`` classes of highest score, bool (images,).

    ``scores`` are logits or probabilities (images, classes), and ``labels`` int64 (images,). Of
    equal scores the first counts as the highest, as for ``argmax``, so a network with constant
    scores is right by chance only. NaN and ``UNKNOWN`` labels are never right.
    """
    known = labels != UNKNOWN
    own = scores.gather(1, labels.clamp(min=0)[:, None])
    classes = torch.arange(scores.shape[1], device=scores.device)
    before = (scores > own) | ((scores == own) & (classes < labels[:, None]))
    return known & (before.sum(dim=1) < k) & ~scores.isnan().any(dim=1)


def right_by_task(logits: Sequence[torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
    """Whether the true class has the highest logit, bool (images, tasks); False if it is unknown.

    ``logits`` are (images, classes) for each task, and ``labels`` int64 (images, tasks).
    """
    columns = [topk_correct(scores, labels[:, task]) for task, scores in enumerate(logits)]
    return torch.stack(columns, dim=1)


def topk_accuracy(scores: torch.Tensor, labels: torch.Tensor, k: int = 1) -> float:
    """Share of images with a known label that are :func:`topk_correct`; NaN without such."""
    known = int((labels != UNKNOWN).sum())
    return int(topk_correct(scores, labels, k).sum()) / known if known else float("nan")


def held_out_figures(
    logits: Sequence[torch.Tensor], labels: torch.Tensor, tasks: Sequence[Task]
) -> dict[str, float]:
    """``test/loss``, ``test/top1`` and ``test/top5``; arguments as :func:`right_by_task`.

    They are means over tasks, top-5 over those with more than five classes. With several tasks
    there is also ``test/top1/TASK``.
    """
    figures = {"test/loss": classification_loss(logits, labels).item()}
    for k in (1, 5):
        accuracies = {
            task: topk_accuracy(logits[column], labels[:, column], k)
            for column, task in enumerate(tasks)
            if len(task.classes) > k and (labels[:, column] != UNKNOWN).any()
        }
        if accuracies:
            figures[f"test/top{k}"] = sum(accuracies.values()) / len(accuracies)
        if len(tasks) > 1:
            for task, accuracy in accuracies.items():
                figures[f"test/top{k}/{task.name}"] = accuracy
    return figures


def accuracy_interval(right: torch.Tensor, episodes: Episodes | None = None) -> tuple[float, float]:
    """95% interval of an accuracy: Wilson's, or over episodes where images are frames of games.

    The interval has a width even if all episodes show the same, and is 0 to 1 if a game has only
    one episode. ``right`` is bool (images,).
    """
    if episodes is None:
        return wilson_interval(int(right.sum()), len(right))
    found = clustered_interval(right.double()[:, None], episodes.ids, episodes.games)
    lower, upper = found or (0.0, 1.0)
    if lower == upper:
        # All episodes are equal, as if all images are right; each episode counts as one image.
        count = len(episodes.ids.unique())
        return wilson_interval(round(lower * count), count)
    return max(0.0, lower), min(1.0, upper)


def in_percent(accuracy: float, interval: Sequence[float]) -> str:
    """``58.15% (95% interval 55.97 to 60.30)``."""
    lower, upper = interval
    return f"{100 * accuracy:.2f}% (95% interval {100 * lower:.2f} to {100 * upper:.2f})"


@dataclass(frozen=True)
class Evaluation:
    """Predictions of a network, or of an ensemble, for images of known class.

    ``labels`` are int64 (images,), and ``probabilities`` float32 (images, classes). ``episodes``
    says which images depend on each other; None where none do.
    """

    classes: tuple[str, ...]
    labels: torch.Tensor
    probabilities: torch.Tensor
    episodes: Episodes | None = None

    @property
    def predicted(self) -> torch.Tensor:
        """The most probable class of each image, int64 (images,)."""
        return self.probabilities.argmax(dim=1)

    def worst(self, count: int) -> list[int]:
        """Misclassified images, the least probable true classes first."""
        wrong = ~topk_correct(self.probabilities, self.labels)
        true = self.probabilities.gather(1, self.labels[:, None])[:, 0]
        order = true.argsort(stable=True)
        return order[wrong[order]][:count].tolist()

    def occurring(self) -> list[int]:
        """Indices of the classes that are a true or a predicted class of an image."""
        return torch.cat((self.labels, self.predicted)).unique().tolist()

    def confusion(self) -> torch.Tensor:
        """Counts of the :meth:`occurring` classes, int64: rows are true, columns predicted ones."""
        from sklearn.metrics import confusion_matrix

        counts = confusion_matrix(self.labels, self.predicted, labels=self.occurring())
        return torch.from_numpy(counts)

    def summary(self) -> list[str]:
        """The :meth:`figures` as text: ``top-1 57.50% (95% interval 42.20 to 71.49)``."""
        figures: dict[str, Any] = self.figures()
        return [
            f"top-{k} {in_percent(figures[f'top{k}'], figures[f'top{k}_interval'])}"
            for k in (1, 5)
            if f"top{k}" in figures
        ]

    def figures(self) -> dict[str, float | list[float]]:
        """``top1`` and ``top5``, each with its :func:`accuracy_interval`, as JSON values."""
        figures: dict[str, float | list[float]] = {}
        # With five classes or fewer, top-5 has no meaning.
        for k in (1, 5) if len(self.classes) > 5 else (1,):
            right = topk_correct(self.probabilities, self.labels, k)
            figures[f"top{k}"] = int(right.sum()) / len(right)
            figures[f"top{k}_interval"] = list(accuracy_interval(right, self.episodes))
        return figures

    def to_json(self) -> dict[str, Any]:
        """All results except the probabilities, as JSON values."""
        occurring = self.occurring()
        return {
            "images": len(self.labels),
            **self.figures(),
            "confusion": {
                "class_indices": occurring,
                "classes": [self.classes[index] for index in occurring],
                "counts": self.confusion().tolist(),
            },
        }
