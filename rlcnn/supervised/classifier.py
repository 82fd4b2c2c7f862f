"""A classifier: an encoder with a linear layer for each task, and its file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import torch
from torch import nn

from envs.errors import UserError
from rlcnn.accelerate.transfers import read_late
from rlcnn.data.batches import Batch, Batches
from rlcnn.data.images import UNKNOWN, Task
from rlcnn.encoders import Encoder
from rlcnn.supervised.evaluation.metrics import held_out_figures
from rlcnn.supervised.network import Measures, PretrainingNetwork
from rlcnn.supervised.optimization import classification_loss
from rlcnn.weights.load import HEAD, load_encoder, read_tensors, save_tensors


class Classifier(PretrainingNetwork):
    """An encoder with a linear layer whose outputs are the concatenated classes of all tasks.

    The head computes in float32, also if the encoder runs under autocast. ``classes`` are the
    numbers of classes of the tasks.
    """

    def __init__(
        self,
        encoder: Encoder,
        tasks: Sequence[Task],
        *,
        dropout: float = 0.0,
        label_smoothing: float = 0.0,
    ) -> None:
        """Adds a new head.

        In training ``dropout`` zeroes each feature with this probability, and ``label_smoothing``
        is the share of the target that is spread evenly over all classes.
        """
        super().__init__()
        self.encoder = encoder
        self.tasks = tuple(tasks)
        self.measured = tuple(
            f"top1/{task.name}" if len(self.tasks) > 1 else "top1" for task in self.tasks
        )
        self.label_smoothing = label_smoothing
        self.classes = [len(task.classes) for task in tasks]
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(encoder.features_dim, sum(self.classes))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """uint8 (batch, channels, height, width) -> for each task float32 (batch, classes)."""
        return self.classify(self.encoder(images))

    def classify(self, features: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Features (batch, features_dim) -> logits of each task, float32 (batch, classes)."""
        with torch.autocast(features.device.type, enabled=False):
            logits = self.head(self.dropout(features.float()))
        return logits.split(self.classes, dim=1)

    def measure(self, batch: Batch) -> Measures:
        """The cross-entropy of a minibatch of images, and the accuracy of each task."""
        return self.measure_features(self.encoder(batch.images), batch.labels)

    def measure_features(self, features: torch.Tensor, labels: torch.Tensor) -> Measures:
        """As :meth:`measure`, for features (batch, features_dim) and labels (batch, tasks)."""
        logits = self.classify(features)
        loss = classification_loss(logits, labels, self.label_smoothing)
        accuracies = [
            ((scores.argmax(dim=1) == target).sum(), (target != UNKNOWN).sum())
            for scores, target in zip(logits, labels.unbind(dim=1), strict=True)
        ]
        return Measures(loss, accuracies)

    def evaluate(self, test: Batches) -> dict[str, float]:
        """Loss, and top-1 and (of more than five classes) top-5 accuracy on the held-out images.

        With several tasks, ``test/top1`` is the mean over them.
        """
        images = test.images
        return held_out_figures(self.held_out_logits(test), images.labels, images.tasks)

    def held_out_logits(self, test: Batches) -> tuple[torch.Tensor, ...]:
        """Logits of the held-out images, (images, classes) for each task, on the CPU."""
        # One tensor per batch, copied while the next batch is computed.
        logits = (torch.cat(self(batch.images), dim=1) for batch in test.held_out())
        every = torch.cat(list(read_late(logits, self.head.weight.device)))
        return every.split(self.classes, dim=1)

    def save(self, path: str | PathLike[str], about: Mapping[str, Any]) -> None:
        """As :func:`save_classifier`."""
        save_classifier(self, path, about)


def save_classifier(
    classifier: Classifier, path: str | PathLike[str], about: Mapping[str, Any] | None = None
) -> None:
    """Writes a classifier to a safetensors file that is also a weights file of its encoder.

    ``rlcnn.weights.load`` reads the encoder's tensors and leaves out the head's. ``about`` are JSON
    values to store with the weights: data, recipe, accuracy, run.

    Raises:
        UserError: the disk is full or the file cannot be written; an older file does not change.
    """
    encoder, head = classifier.encoder.state_dict(), classifier.head.state_dict()
    tasks = [{"name": task.name, "classes": list(task.classes)} for task in classifier.tasks]
    save_tensors(
        path,
        {**encoder, **{HEAD + name: tensor for name, tensor in head.items()}},
        {"encoder": classifier.encoder.spec(), "tasks": tasks, "about": dict(about or {})},
    )


def load_classifier(path: str | PathLike[str]) -> Classifier:
    """Builds the classifier in a file of :func:`save_classifier`, on the CPU, in training mode.

    ``rlcnn.weights.load.read_about`` reads ``about``.

    Raises:
        UserError: the file is missing, truncated, of another program or of an encoder alone, the
            encoder is unknown, or the weights do not fit it.
    """
    file = read_tensors(path)
    try:
        tasks = [
            Task(task["name"], tuple(task["classes"])) for task in file.metadata.get("tasks") or ()
        ]
    except (TypeError, KeyError) as error:
        raise UserError(f'"{path}" describes its tasks in a way that cannot be read') from error
    if not tasks:
        raise UserError(f'"{path}" holds no classifier: it describes no task')
    classifier = Classifier(load_encoder(path), tasks)
    head: dict[str, torch.Tensor] = {}
    for name, own in classifier.head.state_dict().items():
        head[name] = file.tensors.get(HEAD + name, torch.empty(0))
        if head[name].shape != own.shape:
            raise UserError(
                f'"{path}": its head does not fit its {len(own)} classes: {HEAD}{name} is'
                f" {tuple(head[name].shape)} instead of {tuple(own.shape)}"
            )
    classifier.head.load_state_dict(head)
    return classifier
