"""Zero-shot classification: classes that a network never saw, by word vectors (ConSE)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F

from envs.errors import UserError
from rlcnn.data.images import LabelledImages
from rlcnn.supervised.evaluation.assessment import (
    Assessment,
    Prediction,
    chosen_task,
    predict,
    shared_classes,
)
from rlcnn.supervised.evaluation.metrics import Evaluation, accuracy_interval, topk_correct
from rlcnn.supervised.evaluation.networks import Network
from rlcnn.supervised.evaluation.word_vectors import class_vectors

HITS = (1, 2, 5, 10, 20)
"""The k of hit@k in Norouzi et al. 2014."""

TOP = 10
"""Classes that are averaged; Norouzi et al. 2014 compare 1, 10 and 1,000."""

# Names that one line of text shows.
_SHOWN = 5


def conse(
    probabilities: torch.Tensor, seen: torch.Tensor, unseen: torch.Tensor, top: int
) -> torch.Tensor:
    """Similarities of images to classes that the network never saw, float32 (images, unseen).

    ConSE (Norouzi et al. 2014, "Zero-shot learning by convex combination of semantic embeddings"):
    an image's vector is the mean of the vectors of its ``top`` most probable classes,
    weighted by their probabilities. The similarity is the cosine between it and a class's vector.

    Args:
        probabilities: of the seen classes, (images, seen).
        seen: their vectors, (seen, size).
        unseen: the vectors of the other classes, (unseen, size).
        top: number of classes to average; all if it is larger than their number.
    """
    best = probabilities.topk(min(top, probabilities.shape[1]), dim=1)
    weights = torch.zeros_like(probabilities).scatter(1, best.indices, best.values)
    # The division by the sum of the weights changes no cosine.
    return F.normalize(weights @ seen, dim=1) @ F.normalize(unseen, dim=1).T


@dataclass(frozen=True)
class ZeroShotEvaluation(Evaluation):
    """Predictions of unseen ``classes``; ``probabilities`` are similarities."""

    def figures(self) -> dict[str, Any]:
        """``hit1``, ``hit2`` ... with their intervals, and ``hit1_chance``, by random guesses."""
        figures: dict[str, Any] = {}
        for k in HITS:
            # All classes together always hit.
            if k < len(self.classes):
                right = topk_correct(self.probabilities, self.labels, k)
                figures[f"hit{k}"] = int(right.sum()) / len(right)
                figures[f"hit{k}_interval"] = list(accuracy_interval(right, self.episodes))
                figures[f"hit{k}_chance"] = k / len(self.classes)
        return figures

    def summary(self) -> list[str]:
        figures = self.figures()
        return [
            f"hit@{k} {100 * figures[f'hit{k}']:.2f}% (95% interval"
            f" {100 * figures[f'hit{k}_interval'][0]:.2f} to"
            f" {100 * figures[f'hit{k}_interval'][1]:.2f}; chance"
            f" {100 * figures[f'hit{k}_chance']:.2f}%)"
            for k in HITS
            if f"hit{k}" in figures
        ]


def assess_unseen(
    networks: Sequence[Network],
    images: LabelledImages,
    vectors: Any,
    *,
    top: int = TOP,
    report: Callable[[str], object] = lambda line: None,
    **options: Any,
) -> Assessment:
    """Evaluates networks, alone and as an ensemble, on images of classes that they never saw.

    Args:
        networks: the networks; several have the same classes.
        images: images of other classes.
        vectors: word vectors of :func:`~rlcnn.supervised.evaluation.word_vectors.load_word_vectors`
            for the names of all classes.
        top: number of most probable classes whose vectors are averaged.
        report: gets a line about classes of the network without a vector, which are left out.
        **options: of :func:`rlcnn.supervised.evaluation.assessment.predict`, and ``task``.

    Raises:
        UserError: a class was seen or has no vector, or as for ``assess``.
    """
    task = chosen_task(images, options.pop("task", None))
    unseen = task.classes
    seen = shared_classes(networks, images, task)
    plain = {_plain(name) for name in seen}
    if known := [name for name in unseen if _plain(name) in plain]:
        raise UserError(
            f"the network was trained on {_quoted(known)}: --word-vectors is for images of classes"
            " that it never saw"
        )
    unseen_vectors, missing = class_vectors(unseen, vectors)
    if missing:
        names = _quoted([unseen[index] for index in missing])
        raise UserError(f"the word vectors lack a word of {names}: give the folder another name")
    seen_vectors, missing = class_vectors(seen, vectors)
    if len(missing) == len(seen):
        raise UserError(
            f"the word vectors lack every class of the network, such as {_quoted(seen[:1])}"
        )
    if missing:
        names = _quoted([seen[index] for index in missing])
        verb = "has no word vector and is" if len(missing) == 1 else "have no word vector and are"
        report(f"{len(missing)} of {len(seen)} seen classes {verb} left out: {names}")
    prediction: Prediction = predict(networks, images, task, **options)
    prediction.probabilities[..., missing] = 0
    labels = images.labels[prediction.indices, images.tasks.index(task)]
    together, *each = (
        ZeroShotEvaluation(
            unseen,
            labels,
            conse(probabilities, seen_vectors, unseen_vectors, top),
            prediction.episodes,
        )
        for probabilities in (prediction.probabilities.mean(dim=0), *prediction.probabilities)
    )
    return Assessment(together, each, prediction.indices, task.name, prediction.crops)


def _plain(name: str) -> str:
    return " ".join(name.lower().replace("_", " ").split())


def _quoted(names: Sequence[str]) -> str:
    shown = ", ".join(f'"{name}"' for name in names[:_SHOWN])
    rest = len(names) - _SHOWN
    kind = "class" if len(names) == 1 else "classes"
    return f"{kind} {shown}" + (f" and {rest} more" if rest > 0 else "")
