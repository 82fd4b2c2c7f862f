"""Options that normalise an encoder: layer normalisation of activations."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

Norm = Literal["none", "layer", "layer_channels"]
"""Normalisation before each ReLU (Ba et al. 2016, "Layer normalization").

"layer" is over all of (channels, height, width), with a scale and a shift for each value: torch's
``nn.LayerNorm``, as CleanRL's PQN has it. "layer_channels" is over the channels of each position,
with a scale and a shift for each channel: flax's default, as Gallici et al. 2024, "Simplifying deep
temporal difference learning", have it in their own code.
"""

# The defaults of torch and of flax.
_EPSILONS = {"layer": 1e-5, "layer_channels": 1e-6}


class MapNorm(nn.Module):
    """Layer normalisation of feature maps that keeps them in channels_last order.

    ``shape`` is that of the scale and the shift: (channels, height, width) normalises over all of
    these, (channels,) over the channels alone.
    """

    def __init__(self, shape: tuple[int, ...], eps: float) -> None:
        super().__init__()
        self.shape, self.eps = shape, eps
        self.weight, self.bias = nn.Parameter(torch.ones(shape)), nn.Parameter(torch.zeros(shape))

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Maps of the same shape; torch's own layer would change their memory format."""
        weight: torch.Tensor = self.weight
        bias: torch.Tensor = self.bias
        if len(self.shape) == 3:
            weight, bias = weight.permute(1, 2, 0), bias.permute(1, 2, 0)
        rows = F.layer_norm(maps.permute(0, 2, 3, 1), weight.shape, weight, bias, self.eps)
        return rows.permute(0, 3, 1, 2)


def norm_layers(norm: Norm, name: str, shape: tuple[int, ...]) -> dict[str, nn.Module]:
    """The layer that normalises values of ``shape``, by ``name``; empty for "none".

    The shape is (channels, height, width) of maps, or (features,) of vectors.
    """
    if norm == "none":
        return {}
    eps = _EPSILONS[norm]
    if len(shape) == 1:
        return {name: nn.LayerNorm(shape[0], eps=eps)}
    return {name: MapNorm(shape[:1] if norm == "layer_channels" else shape, eps)}
