"""Last layers of encoders: poolings of feature maps, and a fixed random projection."""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from envs.errors import UserError, nearest
from rlcnn.encoders.activations import Activation, make_activation
from rlcnn.encoders.base import check_positive
from rlcnn.encoders.normalisation import Norm, norm_layers

TOKEN_POOLINGS = ("cls", "patches")
POOLINGS = ("flatten", "mean", *TOKEN_POOLINGS)


def named(**layers: nn.Module) -> nn.Sequential:
    """The layers in order, each with its name."""
    return nn.Sequential(OrderedDict(layers))


class Flatten(nn.Flatten):
    """Feature maps to vectors, (batch, channels, height, width) -> (batch, features).

    As ``nn.Flatten``, but gradients have the memory format of the maps. Otherwise the ReLU before
    it gets channels_last maps with gradients in another format, and takes ten times as long on a
    CPU.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return flatten_maps(x)


# A leaf for torch.fx, since it checks the memory format.
@torch.fx.wrap
def flatten_maps(x: torch.Tensor) -> torch.Tensor:
    """As :class:`Flatten`; its name is that of a node."""
    channels_last = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
    if not channels_last or not x.requires_grad:
        return x.flatten(1)
    flat: torch.Tensor = _FlattenChannelsLast.apply(x)
    return flat


class _FlattenChannelsLast(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.shape = x.shape
        return x.flatten(1)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return gradients[0].view(ctx.shape).contiguous(memory_format=torch.channels_last)


class PrefixTokens(NamedTuple):
    """Tokens of a transformer before those of the patches."""

    number: int
    has_class: bool  # whether the first of them is the class token; others are registers


NO_PREFIX = PrefixTokens(0, False)


class TokenMean(nn.Module):
    """Mean over tokens of a transformer from one on: (batch, tokens, d) -> (batch, d)."""

    def __init__(self, start: int = 0) -> None:
        super().__init__()
        self.start = start

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, self.start :].mean(dim=1)


class ClassToken(nn.Module):
    """The first token of a transformer: (batch, tokens, d) -> (batch, d)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, 0]


class RandomProjection(nn.Module):
    """A fixed Gaussian matrix; it nearly keeps lengths and angles (Johnson & Lindenstrauss 1984).

    The matrix is drawn from ``seed`` and never trained. It is saved with the weights, so stored
    features stay valid if a later version of torch draws other numbers.
    """

    weight: torch.Tensor

    def __init__(self, in_features: int, out_features: int, seed: int) -> None:
        """Entries are N(0, 1 / out_features), which keeps squared lengths in expectation."""
        super().__init__()
        # Always on the CPU, since generators of other devices draw other numbers.
        generator = torch.Generator("cpu").manual_seed(seed)
        weight = torch.randn(out_features, in_features, generator=generator, device="cpu")
        weight = weight.to(torch.get_default_device())
        self.register_buffer("weight", weight / math.sqrt(out_features))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in_features) -> (..., out_features)."""
        return F.linear(x, self.weight)


def check_features_dim(features_dim: object) -> None:
    """Refuses an option ``features_dim`` that is no whole number from 0 with a UserError."""
    if features_dim != 0 or isinstance(features_dim, bool):
        check_positive("features_dim", features_dim)


def make_projection(
    inputs: int, features_dim: int, norm: Norm = "none", activation: Activation = "relu"
) -> tuple[nn.Sequential, int]:
    """A linear layer, an activation, and the number of features.

    ``features_dim`` 0 leaves both layers out.
    """
    if not features_dim:
        return nn.Sequential(), inputs
    layers = {
        "linear": nn.Linear(inputs, features_dim),
        **norm_layers(norm, "norm", (features_dim,)),
        activation: make_activation(activation),
    }
    return named(**layers), features_dim


def make_pool(
    pooling: str, shape: tuple[int, ...], prefix: PrefixTokens = NO_PREFIX
) -> tuple[nn.Sequential, int]:
    """A pooling of a trunk's outputs to vectors, and the length of the vectors.

    Args:
        pooling: "flatten" keeps every position; "mean" is the global average; "KxK", such as "4x4",
            averages the cells of a K x K grid. Of tokens, "cls" takes the class token, "patches"
            averages those of the patches, and "mean" all.
        shape: of an output: feature maps (channels, height, width), a transformer's (tokens,
            features), or vectors (features,).
        prefix: the tokens before those of the patches.

    Raises:
        UserError: the pooling is unknown, or does not fit the output.
    """
    grid = re.fullmatch(r"([1-9]\d*)x\1", str(pooling))
    if pooling not in POOLINGS and not grid:
        choices = ", ".join(f'"{name}"' for name in POOLINGS)
        raise UserError(
            f'pooling must be {choices} or a grid such as "4x4", not {pooling!r}.'
            f"{nearest(str(pooling), (*POOLINGS, '4x4'))}"
        )
    if pooling in TOKEN_POOLINGS and len(shape) != 2:
        raise UserError(
            f"pooling {pooling!r} is for the tokens of a transformer, not outputs of shape {shape}:"
            ' expected "mean" or "flatten".'
        )
    if pooling == "cls" and not prefix.has_class:
        raise UserError(
            'pooling "cls" needs a class token, which this node does not have: expected "patches".'
        )
    layers: dict[str, nn.Module] = {}
    if pooling == "flatten":
        features = math.prod(shape)
    elif len(shape) == 3:
        side = int(grid[1]) if grid else 1
        channels, height, width = shape
        if side > min(height, width):
            raise UserError(
                f"pooling {pooling!r} is finer than the feature maps: {height}x{width}."
            )
        layers["mean"] = nn.AdaptiveAvgPool2d(side)
        features = channels * side**2
    elif len(shape) == 2 and not grid:
        start = prefix.number if pooling == "patches" else 0
        layers["mean"] = ClassToken() if pooling == "cls" else TokenMean(start)
        features = shape[1]
    else:
        raise UserError(f"pooling {pooling!r} needs feature maps, not outputs of shape {shape}.")
    layers["flatten"] = Flatten()
    return named(**layers), features
