"""The picture ``saliency``: what decides a classifier's class or an agent's action."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from rich.console import Console

from envs.errors import UserError
from rlcnn.encoders import Encoder
from rlcnn.report.style import elided, percent
from rlcnn.runs.progress import waiting
from rlcnn.visualize.gallery.source import Explained, Source
from rlcnn.visualize.heat import saliency_figure
from rlcnn.visualize.nodes import Layer, find_layer, list_layers
from rlcnn.visualize.saliency import (
    grad_cam,
    gradient,
    integrated_gradients,
    occlusion,
    strength,
    takes_pixels_as_floats,
)
from rlcnn.visualize.sheets import Sheet

# Squares that cover a picture's side, and how many of them overlap.
_SQUARES, _OVERLAP = 8, 2
_LONGEST_NAME = 16


def draw_saliency(source: Source, console: Console) -> list[Sheet]:
    """Gradients, integrated gradients, Grad-CAM and occlusion of some held-out images."""
    config = source.config
    with source.explain() if source.explain else _classifier(source) as network:
        layers = list_layers(network.encoder)
        layer = find_layer(network.encoder, config.layer or _last_maps(layers), layers)
        count = len(source.loaded.test)
        chosen = np.linspace(0, count - 1, min(config.queries, count)).round().astype(int).tolist()
        images = torch.cat([network.observe(source.loaded.test[index]) for index in chosen])
        with torch.no_grad():
            scores = network.scores(images.float())
        targets = scores.argmax(dim=1)
        with waiting(console, "saliency"):
            maps = _maps(network, layer, images, targets)
        names = [source.loaded.test.name(index) for index in chosen]
        decided = [network.outputs[target] for target in targets.tolist()]
        shares = scores.softmax(dim=1).amax(dim=1).tolist()
        if network.kind == "Q value":
            said = [f"Q {float(score):.2f}" for score in scores.amax(dim=1)]
        else:
            said = [percent(share) for share in shares]
        labels = [
            "\n".join(elided(part, _LONGEST_NAME) for part in parts)
            for parts in zip(names, decided, said, strict=True)
        ]
        newest = slice(-network.frame_channels, None)
        figure = saliency_figure(
            images[:, newest].numpy(),
            {name: strength(each[:, newest]) for name, each in maps.items()},
            labels=labels,
        )
        shown = ", of a stack the newest frame" if images.shape[1] > network.frame_channels else ""
        caption = (
            f"Which pixels the {network.kind} of the chosen output depends on{shown}. Each map has"
            f" its own scale. Grad-CAM is of layer {layer.name}. A bright pixel changes the score;"
            " it need not be what a person would call a reason."
        )
        title = f"Saliency of {network.encoder.name}"
        return [Sheet("saliency", title, figure, caption)]


def _maps(
    network: Explained, layer: Layer, images: torch.Tensor, targets: torch.Tensor
) -> dict[str, torch.Tensor]:
    scores, encoder = network.scores, network.encoder
    # Nodes have the names of the whole encoder, or of a library's network.
    node = layer.name if encoder.nodes_of else f"trunk.{layer.name}"
    window = max(2, min(images.shape[2:]) // _SQUARES)
    return {
        "gradient": gradient(scores, images, targets),
        "integrated\ngradients": integrated_gradients(scores, images, targets),
        "Grad-CAM": grad_cam(scores, encoder, node, images, targets),
        "occlusion": occlusion(
            scores,
            images,
            targets,
            window=window,
            stride=max(1, window // _OVERLAP),
            frame_channels=network.frame_channels,
        ).clamp(min=0),
    }


def _last_maps(layers: dict[str, Layer]) -> str:
    """The last layer with maps: late maps tell objects apart, and still say where they are."""
    fitting = [name for name, layer in layers.items() if layer.has_maps]
    # The trunk's output is no node of its own.
    named = [name for name in fitting if name != "output"]
    if not named:
        raise UserError("the network has no layer with feature maps: Grad-CAM needs one")
    return named[-1]


@contextmanager
def _classifier(source: Source) -> Iterator[Explained]:
    network = source.classifier()
    module = network.module.to("cpu")
    encoder: Encoder = module.encoder  # type: ignore[assignment]
    task = source.task
    place = network.task(task.name)
    frame_channels = encoder.options.get("frame_channels") or (3 if network.channels == 3 else 1)
    network = network.prepared_for(source.data, source.loaded.test)
    with takes_pixels_as_floats(module):
        yield Explained(
            lambda pixels: module(pixels)[place],
            encoder,
            network.tasks[place].classes,
            "logit",
            frame_channels,
            network.transform.centre,
        )
