"""An encoder with a linear layer for each task, and its file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import torch
from torch import nn

from envs.errors import UserError
from rlcnn.data.images import Task
from rlcnn.encoders import Encoder
from rlcnn.weights.load import HEAD, load_encoder, read_tensors, save_tensors


class Classifier(nn.Module):
    """An encoder, and one linear layer whose outputs are the classes of all tasks side by side.

    The head computes in float32, also where the encoder runs under autocast.

    Attributes:
        encoder: uint8 images -> features.
        tasks: what is asked of each image.
        classes: number of classes of each task.
    """

    def __init__(self, encoder: Encoder, tasks: Sequence[Task], *, dropout: float = 0.0) -> None:
        """Puts a freshly initialised head on an encoder.

        Args:
            encoder: for the shape of the images.
            tasks: one or more.
            dropout: probability with which each feature is zeroed in training mode.
        """
        super().__init__()
        self.encoder = encoder
        self.tasks = tuple(tasks)
        self.classes = [len(task.classes) for task in tasks]
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(encoder.features_dim, sum(self.classes))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Logits of each task.

        Args:
            images: uint8 (batch, channels, height, width).

        Returns:
            For each task float32 (batch, classes).
        """
        return self.classify(self.encoder(images))

    def classify(self, features: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Features (batch, features_dim) -> logits of each task, float32 (batch, classes)."""
        with torch.autocast(features.device.type, enabled=False):
            logits = self.head(self.dropout(features.float()))
        return logits.split(self.classes, dim=1)


def save_classifier(
    classifier: Classifier, path: str | PathLike[str], about: Mapping[str, Any] | None = None
) -> None:
    """Writes a classifier as one safetensors file that is also its encoder's weights file.

    ``rlcnn.weights.load`` takes the encoder's tensors from it, under their own names, and leaves
    the head's.

    Args:
        classifier: on any device.
        path: usually ending in ``.safetensors``; its directory must exist.
        about: JSON values to keep beside the weights: data, recipe, accuracy, run.

    Raises:
        UserError: the disk is full or the place cannot be written; an older file is untouched.
    """
    encoder, head = classifier.encoder.state_dict(), classifier.head.state_dict()
    tasks = [{"name": task.name, "classes": list(task.classes)} for task in classifier.tasks]
    save_tensors(
        path,
        {**encoder, **{HEAD + name: tensor for name, tensor in head.items()}},
        {"encoder": classifier.encoder.spec(), "tasks": tasks, "about": dict(about or {})},
    )


def load_classifier(path: str | PathLike[str]) -> Classifier:
    """Builds the classifier a file describes and loads its weights, on the CPU, in training mode.

    ``rlcnn.weights.load.read_about`` gives what else the file says.

    Args:
        path: a file written by :func:`save_classifier`.

    Raises:
        UserError: a missing, truncated or foreign file, one of an encoder alone, an encoder not
            known here, or weights that do not fit it.
    """
    file = read_tensors(path)
    described = file.metadata.get("tasks")
    try:
        tasks = [Task(task["name"], tuple(task["classes"])) for task in described or ()]
    except (TypeError, KeyError) as error:
        raise UserError(f'"{path}" describes its tasks in a way that cannot be read') from error
    if not tasks:
        raise UserError(f'"{path}" holds no classifier: it says of no task what its classes are')
    classifier = Classifier(load_encoder(path), tasks)
    head = {
        name: file.tensors.get(HEAD + name, torch.empty(0)) for name in classifier.head.state_dict()
    }
    own = {name: tensor.shape for name, tensor in classifier.head.state_dict().items()}
    for name, tensor in head.items():
        if tensor.shape != own[name]:
            raise UserError(
                f'"{path}": its head does not fit its {own[name][0]} classes: {HEAD}{name} is'
                f" {tuple(tensor.shape)} instead of {tuple(own[name])}"
            )
    classifier.head.load_state_dict(head)
    return classifier
