"""Plots of a pretraining's errors on its held-out images."""

from __future__ import annotations

from pathlib import Path

import torch

from rlcnn.data.batches import Batches
from rlcnn.data.images import UNKNOWN
from rlcnn.supervised.evaluation.assessment import Assessment
from rlcnn.supervised.evaluation.metrics import Evaluation, topk_accuracy
from rlcnn.supervised.trainer import Trainer
from rlcnn.visualize.errors import write_error_plots


def write_held_out_plots(trainer: Trainer, test: Batches, directory: Path) -> list[Path]:
    """Writes the plots of :func:`write_error_plots` of the evaluated network; their paths.

    Of several tasks it is the one with the least accuracy. A network that does not classify has no
    plots.

    Raises:
        UserError: the directory cannot be written.
    """
    logits, labels = trainer.held_out_logits(test), test.images.labels
    if logits is None:
        return []
    known = [column for column in range(len(logits)) if (labels[:, column] != UNKNOWN).any()]
    worst = min(known, key=lambda column: topk_accuracy(logits[column], labels[:, column]))
    task, indices = test.images.tasks[worst], (labels[:, worst] != UNKNOWN).nonzero()[:, 0]
    probabilities = logits[worst][indices].float().softmax(dim=1)
    evaluation = Evaluation(task.classes, labels[indices, worst], probabilities)
    return write_error_plots(
        Assessment(evaluation, [evaluation], indices.tolist(), task.name, crops=1),
        lambda index: test.at(torch.tensor([index])).images[0].cpu(),
        directory,
        test.images.name,
    )
