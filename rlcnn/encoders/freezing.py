"""Which of an encoder's layers stay as they are, all of its pretrained ones or those before a node.

Nodes are named as ``torchvision.models.feature_extraction`` names them, in the order in which they
are computed; see :meth:`rlcnn.encoders.base.Encoder.nodes`.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from torch import nn

from envs.errors import UserError, nearest
from rlcnn.encoders.base import Encoder
from rlcnn.encoders.stored import pretrained_parts


class Layers(NamedTuple):
    """Some layers of an encoder.

    Attributes:
        parameters: theirs, those that could be learned.
        modules: those that behave in training unlike in evaluation, and all others.
    """

    parameters: list[nn.Parameter]
    modules: list[nn.Module]


def pretrained_layers(encoder: Encoder) -> Layers:
    """All that weights are loaded for: not what combines the frames before a network for RGB."""
    parts = pretrained_parts(encoder)
    return Layers([p for part in parts for p in part.parameters() if p.requires_grad], parts)


def layers_before(encoder: Encoder, node: str) -> Layers:
    """The layers that have been passed when a node is computed, and are not passed again after it.

    Args:
        encoder: whose nodes are meant.
        node: one of ``encoder.nodes()``, or a module, which stands for the first of its nodes.

    Raises:
        UserError: there is no such node, or nothing from it on can be learned.
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
    held, learned = [], 0
    for name, parameter in root.named_parameters():
        if not parameter.requires_grad:
            continue
        if all(place < places[0] for place in _uses_of_tensor(nodes, name)):
            held.append(parameter)
        else:
            learned += 1
    if not learned:
        raise UserError(
            f'nothing of encoder "{encoder.name}" from node "{node}" on has parameters to learn:'
            " name an earlier node, or freeze all of it."
        )
    modules = [
        module
        for name, module in root.named_modules()
        if name and all(place < places[0] for place in _uses_of_module(nodes, name))
    ]
    return Layers(held, modules)


def _within(name: str, module: str) -> bool:
    return name == module or name.startswith(f"{module}.")


def _without_count(name: str) -> str:
    """What is called once more, and an operation of the same name, has a number behind it."""
    return re.sub(r"_\d+$", "", name)


def _uses_of_module(nodes: list[str], name: str) -> list[int]:
    """Where a module is called, or one that it lies in, or those that lie in it."""
    return [
        place
        for place, node in enumerate(nodes)
        if _within(node, name) or _within(name, node) or _without_count(node) == name
    ]


def _uses_of_tensor(nodes: list[str], name: str) -> list[int]:
    """Where a parameter is used: by itself in a module that is no leaf, or else by its layer."""
    plain = _letters(name)
    alone = [
        place
        for place, node in enumerate(nodes)
        if plain in (_letters(own := node.split(".")[-1]), _letters(_without_count(own)))
    ]
    return alone or _uses_of_module(nodes, name.rpartition(".")[0])


def _letters(name: str) -> str:
    # A tensor's node has its path for a name, with other characters between and in small letters.
    return re.sub(r"[^0-9a-z]", "", name.lower())
