"""A classifier: an encoder with a linear layer for each task, and its file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import torch
from torch import nn

from envs.errors import UserError
from rlcnn.data.images import Task
from rlcnn.encoders import Encoder
from rlcnn.encoders.freezing import PartlyFrozen
from rlcnn.weights.load import HEAD, load_encoder, read_tensors, save_tensors


class Classifier(PartlyFrozen):
    """An encoder with a linear layer whose outputs are the concatenated classes of all tasks.

    The head computes in float32, also if the encoder runs under autocast. ``classes`` are the
    numbers of classes of the tasks.
    """

    def __init__(self, encoder: Encoder, tasks: Sequence[Task], *, dropout: float = 0.0) -> None:
        """Adds a new head; ``dropout`` zeroes each feature in training with this probability."""
        super().__init__()
        self.encoder = encoder
        self.tasks = tuple(tasks)
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
