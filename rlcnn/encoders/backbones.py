"""ImageNet networks of torchvision and timm as encoders, cut at a node."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx, nn

from envs.errors import UserError, nearest
from rlcnn.encoders.architectures import (
    TIMM,
    Architecture,
    current_name,
    find_architecture,
    list_architectures,
)
from rlcnn.encoders.base import EncoderSpec
from rlcnn.encoders.frames import FrameEncoder, Projection, Stacking, inflate
from rlcnn.encoders.layers import NO_PREFIX, PrefixTokens

# Nodes that every network has besides its own.
LOGITS, PENULTIMATE = "logits", "penultimate"


# A part of a network with fewer children is looked into for its blocks.
_FEW_BLOCKS = 4


class Backbone(nn.Module):
    """A network up to one of its nodes; ``network`` names layers as the whole network does."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (n, 3, height, width) -> output of the node: maps, tokens or vectors."""
        return self.network(images)["features"]


class BackboneEncoder(FrameEncoder):
    """``NAME[:NODE]``: a classification network of torchvision, or ``timm:NAME[:NODE]``.

    NODE is a node of ``torchvision.models.feature_extraction`` (a module means its last node:
    ``resnet18:layer2``), or "logits", the network's 1000 classes, or "penultimate", the input of
    its last layer. The default is a node that serves control well; see ``DEFAULT_NODES``.

    The library initialises the network. Images are scaled as for its ImageNet weights, whether
    these are loaded or not. Observations are RGB frames, or grey frames repeated over the three
    channels.
    """

    nodes_of = "trunk.network"
    prefix = f"{nodes_of}."

    def __init__(
        self,
        observation_shape: Sequence[int],
        name: str,
        *,
        frame_channels: int | None = None,
        stacking: Stacking = "per_frame",
        differences: bool = False,
        resize: int | None = None,
        pooling: str = "flatten",
        projection: Projection = "learned",
        features_dim: int = 256,
        projection_seed: int = 0,
    ) -> None:
        """Builds the network, cuts it and adds a projection.

        Args:
            observation_shape: (frames * channels, height, width).
            name: ``NAME[:NODE]``.
            frame_channels: 1 for grey frames, 3 for RGB; None takes RGB if the observation's
                channels are a multiple of 3.
            stacking: "per_frame" encodes each frame alone and concatenates the features (PIE-G;
                PVR: Parisi et al. 2022); "inflated" applies the first convolution to the whole
                stack, with RGB filters summed for grey frames and shared among the frames.
            differences: adds the differences of neighbouring frames' features to the features of
                the newer frames (PIE-G).
            resize: side in pixels to resize frames to; None keeps their size.
            pooling: of the node's maps: "flatten", "mean", or a grid such as "4x4"; of a
                transformer's tokens: "flatten", "mean", "cls", the class token alone, or "patches",
                the mean of the tokens of patches.
            projection: "learned": a linear layer over all frames, LayerNorm and tanh (PIE-G);
                "random": a fixed Gaussian matrix on each frame's features; "none".
            features_dim: output length of a learned projection for an observation, or of a random
                one for each frame.
            projection_seed: seed of the random projection.

        Raises:
            UserError: the network, node or an option is not valid, or images are too small.
        """
        architecture_name, node = split_name(name)
        architecture = _architecture(architecture_name)
        whole = architecture.build()
        node = node or architecture.default_node(whole)
        # The saved name contains the node, so a new default does not change saved encoders.
        self.name = f"{architecture_name}:{node}"
        options: dict[str, Any] = {
            "frame_channels": frame_channels,
            "stacking": stacking,
            "differences": differences,
            "resize": resize,
            "pooling": pooling,
            "projection": projection,
            "features_dim": features_dim,
            "projection_seed": projection_seed,
        }
        super().__init__(observation_shape, options, mean=architecture.mean, std=architecture.std)
        self.first_convolution = None
        if self.options["stacking"] == "inflated":
            self.first_convolution = self.prefix + self._inflate_first_convolution(whole)
        names = list(whole.state_dict())
        # Other tokens follow the embedding of patches.
        tokens = NO_PREFIX if node.startswith("patch_embed") else _prefix_tokens(whole)
        trunk = Backbone(_cut(architecture, whole, node))
        kept = set(trunk.network.state_dict())
        self._beyond = frozenset(names) - kept
        # The classifier is the last part; a file may have another one.
        self._parts = ({_part(n) for n in names} - {_part(names[-1])}) | {_part(n) for n in kept}
        self.attach(trunk, tokens)

    def own_name(self, tensor_name: str) -> str:
        if tensor_name.startswith((self.prefix, "pool.", "projection.")):
            return tensor_name
        return self.prefix + current_name(tensor_name)

    def leaves_out(self, tensor_name: str) -> bool:
        """True for layers after the node, and for a classifier or other part of the file alone."""
        name = current_name(tensor_name.removeprefix(self.prefix))
        return name in self._beyond or _part(name) not in self._parts

    def may_stay_new(self, own_name: str) -> bool:
        """True for tensors that the published network does not have.

        Also for BatchNorm's unused counters, which files from before torch 0.4.1 lack.
        """
        return not own_name.startswith(self.prefix) or own_name.endswith(".num_batches_tracked")

    def shares_trunk(self, spec: EncoderSpec) -> bool:
        """True for the same network with any node."""
        return split_name(spec["name"])[0] == split_name(self.name)[0]

    def adapt(self, own_name: str, tensor: torch.Tensor) -> tuple[torch.Tensor, str] | None:
        """Inflates the RGB filters of the first convolution."""
        if own_name != self.first_convolution or tensor.ndim != 4 or tensor.shape[1] != 3:
            return None
        channels = self.options["frame_channels"]
        frames = self.frame_shape[0] // channels
        kind = "filters summed over RGB" if channels == 1 else "RGB filters"
        return inflate(tensor, frames, channels), f"{kind} and shared among {frames} frames"

    def imagenet_weights(self) -> Mapping[str, torch.Tensor]:
        """The library's default ImageNet weights, classifier included."""
        return _architecture(split_name(self.name)[0]).download()

    def imagenet_source(self) -> str:
        return _architecture(split_name(self.name)[0]).import_hint

    def nodes(self) -> list[str]:
        name, node = split_name(self.name)
        architecture = _architecture(name)
        whole = architecture.build()
        nodes, end = architecture.nodes(whole), _own_node(architecture, whole, node)
        within = [n for n, own in enumerate(nodes) if own == end or own.startswith(f"{end}.")]
        return nodes[: within[-1] + 1]

    def _inflate_first_convolution(self, network: nn.Module) -> str:
        """Inflates the first convolution to the whole stack; returns the name of its weight."""
        convolutions = ((n, m) for n, m in network.named_modules() if isinstance(m, nn.Conv2d))
        name, convolution = next(convolutions, ("", None))
        if convolution is None or convolution.in_channels != 3:
            raise UserError(f'encoder "{self.name}" has no convolution over RGB to inflate.')
        channels = self.options["frame_channels"]
        # Changed in place, so that a library's subclass of Conv2d keeps its additions.
        weight = inflate(convolution.weight.detach(), self.frame_shape[0] // channels, channels)
        convolution.weight, convolution.in_channels = nn.Parameter(weight), weight.shape[1]
        return f"{name}.weight"


def _prefix_tokens(network: nn.Module) -> PrefixTokens:
    """A transformer's tokens before those of the patches, in timm's or torchvision's networks."""
    has_class = any(getattr(network, n, None) is not None for n in ("cls_token", "class_token"))
    return PrefixTokens(getattr(network, "num_prefix_tokens", int(has_class)), has_class)


def _part(tensor_name: str) -> str:
    return tensor_name.split(".")[0]


def split_name(name: str) -> tuple[str, str]:
    """The network and the node of ``NAME[:NODE]``; the node is empty if not given."""
    prefix = TIMM if name.startswith(TIMM) else ""
    network, _, node = name.removeprefix(prefix).partition(":")
    return prefix + network, node


def block_nodes(name: str) -> list[str]:
    """The ends of a network's blocks in order, as nodes to choose a cut from.

    ``name`` is that of a network without a node. They are those of timm's ``feature_info``, or the
    children of the network's part that has at least four; a convolution extends to the next one.
    The classifier is left out. A UserError says that there is no such network.
    """
    architecture = _architecture(name)
    whole = architecture.build()
    levels: Any = getattr(whole, "feature_info", None)
    blocks = [level["module"] for level in levels] if levels else _children(whole)
    nodes = architecture.nodes(whole)

    def contains(block: str, node: str) -> bool:
        return node == block or node.startswith(f"{block}.")

    return [
        block
        for block in blocks
        if any(contains(block, node) for node in nodes) and not contains(block, nodes[-1])
    ]


def _children(network: nn.Module) -> list[str]:
    path, parts = "", dict(network.named_children())
    while True:
        sizes = {n: len(list(part.modules())) for n, part in parts.items() if _learns(part)}
        largest = max(sizes, key=lambda n: sizes[n], default="")
        if len(sizes) >= _FEW_BLOCKS or sizes.get(largest, 1) == 1:
            break
        path, parts = f"{path}{largest}.", dict(parts[largest].named_children())
    blocks: list[str] = []
    in_convolution = False
    for name, part in parts.items():
        is_layer = not list(part.children())
        starts = isinstance(part, nn.Conv2d) or (not is_layer and _learns(part))
        if starts:
            blocks.append(path + name)
            in_convolution = is_layer
        elif is_layer and in_convolution:
            blocks[-1] = path + name
    return blocks


def _learns(module: nn.Module) -> bool:
    return any(True for _ in module.parameters())


def _architecture(name: str) -> Architecture:
    architecture = find_architecture(name)
    if architecture is None:
        raise UserError(f'unknown network "{name}".{nearest(name, list_architectures())}')
    return architecture


def _cut(architecture: Architecture, network: nn.Module, node: str) -> nn.Module:
    node = _own_node(architecture, network, node)
    # The libraries use the name of a node as a regular expression.
    known = re.fullmatch(r"\w+(\.\w+)*", node) is not None
    if known:
        try:
            return _in_one_graph(architecture.cut(network, node))
        except ValueError as error:
            if "is not present in model" not in str(error):
                raise
    nodes = architecture.nodes(network)
    modules = {name.rsplit(".", depth)[0] for name in nodes for depth in range(name.count(".") + 1)}
    choices = [*sorted(modules), LOGITS, PENULTIMATE]
    raise UserError(f'network "{architecture.name}" has no node "{node}".{nearest(node, choices)}')


def _own_node(architecture: Architecture, network: nn.Module, node: str) -> str:
    if node == LOGITS:
        return architecture.nodes(network)[-1]
    if node == PENULTIMATE:
        return _penultimate(architecture.nodes(network), network)
    return node


def _in_one_graph(network: Any) -> nn.Module:
    """A cut network whose code does not depend on the mode, training or evaluation.

    torchvision keeps a graph for each mode and compiles Python code at every change of mode, which
    an agent makes at every update. Equal graphs are replaced by one.
    """
    code = [graph.python_code("self").src for graph in (network.train_graph, network.eval_graph)]
    if code[0] != code[1]:
        return network
    return fx.GraphModule(network, network.eval_graph)


def _penultimate(nodes: list[str], network: nn.Module) -> str:
    modules = dict(network.named_modules())
    layers = [
        index
        for index, node in enumerate(nodes)
        if isinstance(modules.get(node), (nn.Linear, nn.Conv2d))
    ]
    return nodes[layers[-1] - 1]
