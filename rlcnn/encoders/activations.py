"""Activations of encoders, and the gain of the weights before them."""

from __future__ import annotations

import math
from typing import Literal

from torch import nn

Activation = Literal["relu", "elu"]
"""ReLU, or ELU (Clevert et al. 2016), which is ``exp(x) - 1`` below 0."""

_LAYERS: dict[Activation, type[nn.Module]] = {"relu": nn.ReLU, "elu": nn.ELU}


def _normal_cdf(x: float) -> float:
    return math.erfc(-x / math.sqrt(2)) / 2


# 1 / sqrt(E[f(z)^2]) for a standard normal z, which keeps the mean square (He et al. 2015). Above 0
# both give z itself, so half; below 0 ELU adds the integral of (exp(z) - 1)^2.
_BELOW = math.exp(2) * _normal_cdf(-2) - 2 * math.exp(0.5) * _normal_cdf(-1) + 0.5
GAINS: dict[Activation, float] = {"relu": math.sqrt(2), "elu": 1 / math.sqrt(0.5 + _BELOW)}
"""Gains of orthogonal weights: sqrt(2) for ReLU, 1.245 for ELU."""


def make_activation(name: Activation) -> nn.Module:
    """A layer of this activation."""
    return _LAYERS[name]()
