"""The pictures ``saliency`` and ``strip``: what decides a class or an agent's action."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from rich.console import Console

from envs.errors import UserError
from rlcnn.data.names import ATARI
from rlcnn.encoders import Encoder
from rlcnn.report.style import elided, percent
from rlcnn.runs.progress import waiting
from rlcnn.visualize.gallery.source import Explained, Source
from rlcnn.visualize.heat import saliency_figure, strip_figure
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
_STRIDE = 2  # steps between the frames of a strip


def draw_saliency(source: Source, console: Console) -> list[Sheet]:
    """Gradients, integrated gradients, Grad-CAM and occlusion of some held-out images."""
    config = source.config
    with source.explain() if source.explain else _classifier(source) as network:
        layers = list_layers(network.encoder)
        layer = find_layer(network.encoder, config.layer or _last_maps(layers), layers)
        chosen = source.query_places(source.loaded.test)
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


def draw_strip(source: Source, console: Console) -> list[Sheet]:
    """Frames of an agent's game around its largest reward, and what each choice depends on."""
    if source.explain is None:
        raise UserError("strip shows an agent's game: give --run RUN_DIR, a run of train_agent.py")
    with source.explain() as network:
        assert network.play is not None
        game = network.play(source.config.seed)
        steps, count = len(game.actions), source.config.queries
        # The reward is seen in the last frame but one.
        best = int(game.rewards.argmax()) + 1
        first = max(0, min(best - _STRIDE * (count - 2), steps - 1 - _STRIDE * (count - 1)))
        places = range(first, steps, _STRIDE)[:count]
        images, actions = game.observations[places], game.actions[places]
        newest = slice(-network.frame_channels, None)
        with waiting(console, "saliency"):
            maps = strength(gradient(network.scores, images, actions)[:, newest])
        labels = [
            f"step {place + 1}\n{elided(network.outputs[action], _LONGEST_NAME)}"
            for place, action in zip(places, actions.tolist(), strict=True)
        ]
        figure = strip_figure(images[:, newest].numpy(), maps, labels)
        scored = float(game.rewards[best - 1])
        caption = (
            "Above: the newest frame that the agent sees, with its action. Below: the gradient of"
            f" the action's {network.kind} by each pixel, each frame on its own scale."
        ) + (f" The agent gets {scored:g} points in step {best}." if scored > 0 else "")
        title = f"A game of {_game(source)}, and what the agent's choices depend on"
        return [Sheet("strip", title, figure, caption)]


def _game(source: Source) -> str:
    return (source.data or "its own").removeprefix(ATARI)


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
