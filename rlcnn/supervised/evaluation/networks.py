"""Whole classification networks: classifiers of pretrain_encoder.py, and published networks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from envs.errors import UserError, nearest
from rlcnn.data.crops import CropTransform
from rlcnn.data.images import ImageFiles, LabelledImages, Task
from rlcnn.encoders import create_encoder, list_encoders, why_unknown
from rlcnn.encoders.architectures import find_architecture
from rlcnn.encoders.backbones import LOGITS, split_name
from rlcnn.runs.directory import RunDirectory
from rlcnn.supervised.classifier import load_classifier
from rlcnn.weights.load import BEST, LAST, load_into, read_tensors

# Key of the configuration in config.json.
_PRETRAINING = "pretraining"


@dataclass(frozen=True)
class Network:
    """A network that classifies images.

    Attributes:
        source: origin of its weights, as given by the user.
        module: uint8 (batch, channels, height, width) -> logits of each task; in evaluation mode.
        tasks: its tasks with their classes.
        channels: channels of its images.
        transform: image -> the network's input.
        training: options of ``pretrain_encoder.py`` that it was trained with: ``data``,
            ``data_dir``, ``seed``, ``colours``, ``augment`` and ``frames``; empty if unknown.
        report: one line about the weights.
    """

    source: str
    module: nn.Module
    tasks: tuple[Task, ...]
    channels: int
    transform: CropTransform
    training: dict[str, Any]
    report: str

    def task(self, name: str) -> int:
        """The index of the task of this name; a UserError if there is none."""
        names = [task.name for task in self.tasks]
        if name not in names:
            raise UserError(
                f'"{self.source}" was not trained for "{name}", but for'
                f" {', '.join(names)}.{nearest(name, names)}"
            )
        return names.index(name)

    def probabilities(self, images: torch.Tensor, task: int) -> torch.Tensor:
        """Probabilities of classes: uint8 (n, channels, h, w) -> float32 (n, classes)."""
        with torch.inference_mode():
            logits: torch.Tensor = self.module(images)[task]
            return logits.float().softmax(dim=1)

    def prepared_for(self, data: str | None, images: LabelledImages) -> Network:
        """The network with the transform of its training, if ``data`` names its own images."""
        augment = self.training.get("augment")
        # A resize given by the user has priority.
        if not augment or data != self.training.get("data") or self.transform.resize is not None:
            return self
        # As in training: without a configured resize, images of one size keep it, and files are
        # resized to 8/7 of the crop.
        resize = augment.get("resize") or (None if isinstance(images, ImageFiles) else 0)
        return replace(
            self, transform=replace(self.transform, resize=resize, pad=augment.get("pad", 0))
        )


class _PublishedNetwork(nn.Module):
    """An encoder that ends at its logits, as a classifier of one task."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor]:
        return (self.encoder(images),)


def load_network(
    weights: str,
    encoder: str | None = None,
    *,
    size: int | None = None,
    resize: int | None = None,
    device: str = "cpu",
) -> Network:
    """Loads a classifier with its head.

    Args:
        weights: the directory of a run of ``pretrain_encoder.py``, whose best weights are loaded,
            or a weights file of one. For a published network "imagenet", or a file with the tensors
            of the whole network.
        encoder: a classification network of torchvision or timm; needed if the file does not name
            its encoder.
        size: side of the crops. None takes the published size; a classifier of a run has a fixed
            one.
        resize: shorter side that images are first resized to.
        device: device that computes.

    Raises:
        UserError: the weights are missing, damaged, of another network or without a head; the
            encoder is unknown or has no head of its own; a size does not apply.
    """
    path = None if weights == "imagenet" else _weights_file(Path(weights))
    metadata = read_tensors(path).metadata if path else {}
    if path and "tasks" in metadata:
        network = _own(weights, path, metadata, encoder, size, resize)
    elif path and "encoder" in metadata:
        raise UserError(
            f'"{path}" holds encoder "{metadata["encoder"].get("name")}" alone, without a'
            " classifier: pretrain_encoder.py trains one; probe_encoder.py evaluates features"
        )
    else:
        network = _published(weights, path, encoder, size, resize)
    network.module.to(device).eval()
    return network


def _weights_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    if not (path / "config.json").is_file():
        raise UserError(f'"{path}" is a directory, but not a run: it has no config.json.')
    kept = [path / name for name in (BEST, LAST) if (path / name).is_file()]
    if not kept:
        pretrains = _PRETRAINING in RunDirectory.open(path).config
        why = "has no weights yet" if pretrains else "is not a run of pretrain_encoder.py"
        raise UserError(f'"{path}" {why}: it has neither {BEST} nor {LAST}')
    return kept[0]


def _own(
    source: str,
    path: Path,
    metadata: dict[str, Any],
    encoder: str | None,
    size: int | None,
    resize: int | None,
) -> Network:
    classifier = load_classifier(path)
    name = classifier.encoder.name
    if encoder is not None and encoder not in (name, split_name(name)[0]):
        raise UserError(f'"{path}" holds a classifier of encoder "{name}", not of "{encoder}"')
    channels, height, width = classifier.encoder.observation_shape
    if size is not None and (size, size) != (height, width):
        raise UserError(
            f'--size {size} does not apply to "{source}", which was trained on {height}x{width}'
            " pixels"
        )
    return Network(
        source=source,
        module=classifier,
        tasks=classifier.tasks,
        channels=channels,
        transform=CropTransform(height, width, resize),
        training=_training(path, metadata),
        report=f'classifier of encoder "{name}" from "{path}"',
    )


def _published(
    source: str, path: Path | None, encoder: str | None, size: int | None, resize: int | None
) -> Network:
    if encoder is None:
        raise UserError(f'"{source}" does not name its network: give --encoder NAME')
    name, node = split_name(encoder)
    if name in list_encoders():
        raise UserError(
            f'encoder "{name}" has no classifier of its own, and "{source}" holds none:'
            " pretrain_encoder.py trains one"
        )
    architecture = find_architecture(name)
    if architecture is None:
        raise UserError(f'unknown encoder "{name}": {why_unknown(name)}')
    if node not in ("", LOGITS):
        raise UserError(f'a whole network classifies, not "{encoder}": give --encoder {name}')
    if size is not None and size < 1:
        raise UserError(f"--size {size} must be at least 1")
    side = size or architecture.crop
    transform = CropTransform(
        side, side, resize or architecture.resize, interpolation=architecture.interpolation
    )
    network = create_encoder(
        f"{name}:{LOGITS}", (3, side, side), frame_channels=3, projection="none"
    )
    report = load_into(network, path or source)
    if network.features_dim != len(architecture.classes):
        raise UserError(
            f'"{encoder}" has {network.features_dim} outputs for'
            f" {len(architecture.classes)} classes"
        )
    return Network(
        source=source,
        module=_PublishedNetwork(network),
        tasks=(Task("class", architecture.classes),),
        channels=3,
        transform=transform,
        training={},
        report=str(report),
    )


def _training(path: Path, metadata: dict[str, Any]) -> dict[str, Any]:
    """Options of the run whose directory holds the file; outside of a run, those in the file."""
    if (path.parent / "config.json").is_file():
        config = RunDirectory.open(path.parent).config.get(_PRETRAINING)
        if isinstance(config, dict):
            return config
    about = metadata.get("about")
    return dict(about) if isinstance(about, dict) else {}
