"""How well images are classified: top-k accuracy, confusions, worst errors; ensembles by mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from rlcnn.data.images import UNKNOWN, Episodes, Task
from rlcnn.stats.accuracy import clustered_interval, wilson_interval
from rlcnn.supervised.optimization import classification_loss


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


def right_by_task(logits: Sequence[torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
    """Whether the highest logit is the true class's.

    Args:
        logits: for each task (images, classes).
        labels: int64 (images, tasks).

    Returns:
        bool (images, tasks); False also where a class is not known.
    """
    columns = [topk_correct(scores, labels[:, task]) for task, scores in enumerate(logits)]
    return torch.stack(columns, dim=1)


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


def held_out_figures(
    logits: Sequence[torch.Tensor], labels: torch.Tensor, tasks: Sequence[Task]
) -> dict[str, float]:
    """Figures of logits on held-out images, as they are logged.

    Args:
        logits: for each task (images, classes).
        labels: int64 (images, tasks).
        tasks: theirs.

    Returns:
        ``test/loss``, ``test/top1``, ``test/top5`` (means over the tasks that have more than five
        classes); with several tasks also ``test/top1/TASK``.
    """
    figures = {"test/loss": classification_loss(logits, labels).item()}
    for k in (1, 5):
        asked = {
            task: topk_accuracy(logits[column], labels[:, column], k)
            for column, task in enumerate(tasks)
            if len(task.classes) > k and (labels[:, column] != UNKNOWN).any()
        }
        if asked:
            figures[f"test/top{k}"] = sum(asked.values()) / len(asked)
        if len(tasks) > 1:
            named = {metric(f"test/top{k}", task, tasks): value for task, value in asked.items()}
            figures.update(named)
    return figures


def metric(name: str, task: Task, tasks: Sequence[Task]) -> str:
    """What a figure of one task is logged as: by the task's name where there are several."""
    return f"{name}/{task.name}" if len(tasks) > 1 else name


def accuracy_interval(right: torch.Tensor, episodes: Episodes | None = None) -> tuple[float, float]:
    """The 95% interval of an accuracy: Wilson's, or over games played where images are frames.

    It has a width also where all games played show the same.

    Args:
        right: bool (images,).
        episodes: which of them depend on each other.

    Returns:
        Lower and upper end; 0 and 1 where a game was played once, which tells nothing.
    """
    if episodes is None:
        return wilson_interval(int(right.sum()), len(right))
    found = clustered_interval(right.double()[:, None], episodes.ids, episodes.games)
    lower, upper = found or (0.0, 1.0)
    if lower == upper:
        # No game seen differs from another, as where all is right; each counts as one image.
        games = len(episodes.ids.unique())
        return wilson_interval(round(lower * games), games)
    return max(0.0, lower), min(1.0, upper)


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
    return torch.bincount(cells, minlength=classes**2).transform(classes, classes)


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
        episodes: which images depend on each other; None where none do.
    """

    classes: tuple[str, ...]
    labels: torch.Tensor
    probabilities: torch.Tensor
    episodes: Episodes | None = None

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
        """``top1`` and ``top5``, each with its :func:`accuracy_interval`, as JSON values."""
        told: dict[str, float | list[float]] = {}
        for k in self.ks():
            right = topk_correct(self.probabilities, self.labels, k)
            told[f"top{k}"] = int(right.sum()) / len(right)
            told[f"top{k}_interval"] = list(accuracy_interval(right, self.episodes))
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
