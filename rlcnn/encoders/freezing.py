"""Selects the layers of an encoder to freeze: all pretrained ones, or those before a node."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple, Self

from torch import nn

from envs.errors import UserError, nearest
from rlcnn.encoders.base import Encoder


class Layers(NamedTuple):
    """Some layers of an encoder: their trainable parameters, and all modules."""

    parameters: list[nn.Parameter]
    modules: list[nn.Module]


NO_LAYERS = Layers([], [])


class PartlyFrozen(nn.Module):
    """A network some layers of which may be frozen: neither their parameters nor the running
    statistics of their BatchNorm change.
    """

    _frozen_layers = NO_LAYERS

    def freeze(self, layers: Layers) -> None:
        """Freezes these layers and no others; repeated calls are cheap."""
        if layers is self._frozen_layers:
            return
        for parameter in self._frozen_layers.parameters:
            parameter.requires_grad_(True)
        for parameter in layers.parameters:
            parameter.requires_grad_(False)
        self._frozen_layers = layers
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Sets the training mode; frozen layers stay in evaluation mode."""
        super().train(mode)
        for module in self._frozen_layers.modules:
            module.eval()
        return self


def frozen_layers(
    encoder: Encoder, mode: Literal["train", "finetune", "frozen"], unfreeze_from: str = ""
) -> Layers:
    """The layers that a training keeps frozen: all pretrained ones, or those before a node.

    A UserError refuses a node as :func:`layers_before` does.
    """
    if mode == "frozen":
        return pretrained_layers(encoder)
    return layers_before(encoder, unfreeze_from) if unfreeze_from else NO_LAYERS


def pretrained_layers(encoder: Encoder) -> Layers:
    """All layers that pretrained weights exist for; not the combination of frames."""
    parts = encoder.pretrained_parts()
    return Layers([p for part in parts for p in part.parameters() if p.requires_grad], parts)


def layers_before(encoder: Encoder, node: str) -> Layers:
    """The layers that are used only before a node.

    The node is one of ``encoder.nodes()``, or a module, which means its first node. A UserError
    says that there is no such node, or no trainable parameter from it on.
    """
    nodes = encoder.nodes()
    places = [place for place, name in enumerate(nodes) if _within(name, node)]
    if not places:
        parents = {name.rsplit(".", up)[0] for name in nodes for up in range(name.count(".") + 1)}
        raise UserError(
            f'encoder "{encoder.name}" has no node "{node}" to be unfrozen from.'
            f"{nearest(node, sorted(parents))}"
        )
    root = encoder.get_submodule(encoder.nodes_of)

    def come_before(uses: list[int]) -> bool:
        return all(place < places[0] for place in uses)

    trained = {name: p for name, p in root.named_parameters() if p.requires_grad}
    parameters = [p for name, p in trained.items() if come_before(_uses_of_tensor(nodes, name))]
    if len(parameters) == len(trained):
        raise UserError(
            f'encoder "{encoder.name}" has no parameters to train from node "{node}" on: name an'
            " earlier node, or freeze all of it."
        )
    modules = [
        module
        for name, module in root.named_modules()
        if name and come_before(_uses_of_module(nodes, name))
    ]
    return Layers(parameters, modules)


def _within(name: str, module: str) -> bool:
    return name == module or name.startswith(f"{module}.")


def _without_count(name: str) -> str:
    return re.sub(r"_\d+$", "", name)


def _uses_of_module(nodes: list[str], name: str) -> list[int]:
    """Indices of the nodes of a module, of its parents and of its children."""
    return [
        place
        for place, node in enumerate(nodes)
        if _within(node, name) or _within(name, node) or _without_count(node) == name
    ]


def _uses_of_tensor(nodes: list[str], name: str) -> list[int]:
    """Indices of the nodes of a parameter: its own in a module that is no leaf, or its layer's."""
    plain = _letters(name)
    alone = [
        place
        for place, node in enumerate(nodes)
        if plain in (_letters(own := node.split(".")[-1]), _letters(_without_count(own)))
    ]
    return alone or _uses_of_module(nodes, name.rpartition(".")[0])


def _letters(name: str) -> str:
    # A tensor's node is named by its path in lower case with other separators.
    return re.sub(r"[^0-9a-z]", "", name.lower())
