"""Images of plain colours, and a network that classifies them by the nearest one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from rlcnn.data.images import Task
from rlcnn.encoders import create_encoder
from rlcnn.runs.files import write_json_atomic
from rlcnn.supervised.classifier import Classifier, save_classifier

COLOURS = {"red": (200, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 200)}


def draw(path: Path, colour: tuple[int, int, int], seed: int, size: tuple[int, int]) -> None:
    noise = np.random.default_rng(seed).integers(-20, 20, (*size, 3))
    Image.fromarray((np.array(colour) + noise).clip(0, 255).astype(np.uint8)).save(path)


def colour_classifier(path: Path, data: str, *, wrong: bool = False) -> Path:
    """A run of pretraining whose classifier predicts the nearest colour, or the next one."""
    path.mkdir()
    classes = ("blue", "green", "red")
    torch.manual_seed(0)
    encoder = create_encoder("cifar_resnet", (3, 32, 32), depth=8)
    classifier = Classifier(encoder, [Task("class", classes)]).eval()
    plain = torch.tensor([COLOURS[name] for name in classes], dtype=torch.uint8)
    with torch.no_grad():
        features = encoder(plain[:, :, None, None].expand(-1, -1, 32, 32))
        # Squared distances, on a scale that separates the colours with certainty.
        scale = 100 / torch.pdist(features).square().min()
        order = torch.tensor([1, 2, 0] if wrong else [0, 1, 2])
        classifier.head.weight.copy_(scale * features[order])
        classifier.head.bias.copy_(-scale * features[order].square().sum(dim=1) / 2)
    config = {"data": data, "seed": 0, "augment": {"resize": 0, "pad": 0}}
    write_json_atomic(path / "config.json", {"pretraining": config})
    save_classifier(classifier, path / "best.safetensors", {"data": data})
    return path
