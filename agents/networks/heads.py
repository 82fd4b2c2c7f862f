"""Heads of Q networks: features -> Q values, or distributions of returns."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from agents.networks.head_options import HeadOptions


class Outputs(NamedTuple):
    """What a head computes of features: k numbers for each action.

    They are a Q value (k = 1), the logits of atoms, or quantiles.
    """

    values: torch.Tensor  # float32 (batch, actions, k)
    taus: torch.Tensor | None = None  # float32 (batch or 1, k), the levels of quantiles


class Head(nn.Module):
    """Base class. Without a ``generator`` nothing is random: noise is off, levels are even."""

    def outputs(
        self,
        features: torch.Tensor,
        generator: torch.Generator | None = None,
        samples: int | None = None,
    ) -> Outputs:
        """Outputs for features float32 (batch, features_dim).

        Only implicit quantiles use ``samples``, the number of quantiles; None takes those to act
        by.
        """
        raise NotImplementedError

    def means(self, outputs: Outputs) -> torch.Tensor:
        """Q values, float32 (batch, actions)."""
        return outputs.values.mean(dim=2)

    def q_values(
        self, features: torch.Tensor, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        """Q values to act by, float32 (batch, actions)."""
        return self.means(self.outputs(features, generator))

    def selection_values(
        self, features: torch.Tensor, outputs: Outputs, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        """Q values that choose among ``outputs`` of the same features, float32 (batch, actions)."""
        return self.means(outputs)

    def first_layers(self) -> list[nn.Module]:
        """The layers that take the features, one of each stream."""
        return [first_layer(self)]


def first_layer(*parts: nn.Module) -> nn.Module:
    """The first layer with parameters of its own in the order of ``parts``."""
    layers = (layer for part in parts for layer in part.modules())
    return next(layer for layer in layers if any(True for _ in layer.parameters(recurse=False)))


class PlainHead(Head, nn.Sequential):
    """The layers of stable-baselines3's Q network, under the names that they have there."""

    def outputs(
        self,
        features: torch.Tensor,
        generator: torch.Generator | None = None,
        samples: int | None = None,
    ) -> Outputs:
        return Outputs(self(features).unsqueeze(2))

    def means(self, outputs: Outputs) -> torch.Tensor:
        return outputs.values.squeeze(2)


class FixedLinear(nn.Linear):
    """A linear layer with the signature of :class:`NoisyLinear`."""

    def forward(
        self, inputs: torch.Tensor, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        return super().forward(inputs)


class NoisyLinear(nn.Module):
    """A linear layer with learned, factorised Gaussian noise (Fortunato et al. 2018, section 3).

    The noise is drawn anew at every call, once for the whole batch, as in dqn_zoo's
    ``networks.noisy_linear``; without a generator it is zero.

    Args:
        in_features: p; weights and biases begin in U(-1/sqrt(p), 1/sqrt(p)).
        out_features: number of outputs.
        sigma0: the scales of the noise begin at ``sigma0 / sqrt(p)``.
    """

    def __init__(self, in_features: int, out_features: int, sigma0: float) -> None:
        super().__init__()
        bound = 1 / math.sqrt(in_features)
        self.weight = nn.Parameter(torch.empty(out_features, in_features).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(out_features).uniform_(-bound, bound))
        self.weight_sigma = nn.Parameter(torch.full_like(self.weight, sigma0 * bound))
        self.bias_sigma = nn.Parameter(torch.full_like(self.bias, sigma0 * bound))

    def forward(
        self, inputs: torch.Tensor, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        """Inputs float32 (..., in_features) -> outputs float32 (..., out_features)."""
        if generator is None:
            return functional.linear(inputs, self.weight, self.bias)
        rows, columns = (self._noise(size, generator) for size in self.weight.shape)
        weight = torch.addcmul(self.weight, self.weight_sigma, torch.outer(rows, columns))
        bias = torch.addcmul(self.bias, self.bias_sigma, rows)
        return functional.linear(inputs, weight, bias)

    def _noise(self, size: int, generator: torch.Generator) -> torch.Tensor:
        drawn = torch.randn(size, generator=generator, device=self.weight.device)
        return drawn.sign() * drawn.abs().sqrt()


class Stream(nn.Module):
    """A linear layer, or two with a ReLU between; ``units`` 0 leaves out the hidden one."""

    def __init__(self, in_features: int, outputs: int, options: HeadOptions) -> None:
        super().__init__()
        units = options.hidden_units
        self.hidden = make_linear(in_features, units, options) if units else None
        self.output = make_linear(units or in_features, outputs, options)

    def forward(
        self, features: torch.Tensor, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        if self.hidden is not None:
            features = functional.relu(self.hidden(features, generator))
        return self.output(features, generator)


def make_linear(in_features: int, outputs: int, options: HeadOptions) -> nn.Module:
    """A linear layer, noisy or not."""
    if options.noisy:
        return NoisyLinear(in_features, outputs, options.sigma0)
    return FixedLinear(in_features, outputs)


class StreamHead(Head):
    """``k`` numbers for each action, of one stream or of two, combined for each of the k.

    With two streams they are V + A - mean(A) (Wang et al. 2016, equation 9; for distributions as in
    Hessel et al. 2018, "Rainbow").
    """

    def __init__(self, features_dim: int, actions: int, options: HeadOptions, k: int = 1) -> None:
        super().__init__()
        self._shape = actions, k
        self.advantage = Stream(features_dim, actions * k, options)
        self.value = Stream(features_dim, k, options) if options.dueling else None

    def outputs(
        self,
        features: torch.Tensor,
        generator: torch.Generator | None = None,
        samples: int | None = None,
    ) -> Outputs:
        return Outputs(self.combine(features, generator))

    def first_layers(self) -> list[nn.Module]:
        return [first_layer(stream) for stream in (self.advantage, self.value) if stream]

    def combine(
        self, features: torch.Tensor, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        """Features float32 (..., features_dim) -> float32 (..., actions, k)."""
        advantages = self.advantage(features, generator).unflatten(-1, self._shape)
        if self.value is None:
            return advantages
        values = self.value(features, generator).unsqueeze(-2)
        return values + advantages - advantages.mean(dim=-2, keepdim=True)


class C51Head(StreamHead):
    """Logits of returns at fixed atoms (Bellemare et al. 2017).

    Attributes:
        support: float32 (atoms,), the returns of the atoms, evenly spaced.
    """

    support: torch.Tensor

    def __init__(self, features_dim: int, actions: int, options: HeadOptions) -> None:
        super().__init__(features_dim, actions, options, options.atoms)
        support = torch.linspace(options.v_min, options.v_max, options.atoms)
        self.register_buffer("support", support, persistent=False)

    def means(self, outputs: Outputs) -> torch.Tensor:
        return (outputs.values.softmax(dim=2) * self.support).sum(dim=2)


class QRHead(StreamHead):
    """Quantiles of returns at fixed levels (i + 0.5) / N (Dabney et al. 2018a, section 3)."""

    taus: torch.Tensor

    def __init__(self, features_dim: int, actions: int, options: HeadOptions) -> None:
        super().__init__(features_dim, actions, options, options.quantiles)
        taus = (torch.arange(options.quantiles) + 0.5) / options.quantiles
        self.register_buffer("taus", taus[None], persistent=False)

    def outputs(
        self,
        features: torch.Tensor,
        generator: torch.Generator | None = None,
        samples: int | None = None,
    ) -> Outputs:
        return Outputs(self.combine(features, generator), self.taus)


class IQNHead(StreamHead):
    """Quantiles of returns at drawn levels tau (Dabney et al. 2018b, section 3.1, equation 4).

    Features are multiplied by an embedding of tau: a linear layer with a ReLU on cos(pi i tau).
    """

    multiples: torch.Tensor

    def __init__(self, features_dim: int, actions: int, options: HeadOptions) -> None:
        super().__init__(features_dim, actions, options)
        self._acting_samples = options.iqn_acting_samples
        self.embedding = nn.Linear(options.cosines, features_dim)
        multiples = math.pi * (torch.arange(options.cosines) + float(options.first_cosine))
        self.register_buffer("multiples", multiples, persistent=False)

    def outputs(
        self,
        features: torch.Tensor,
        generator: torch.Generator | None = None,
        samples: int | None = None,
    ) -> Outputs:
        shape, device = (len(features), samples or self._acting_samples), features.device
        if generator is None:
            taus = ((torch.arange(shape[1], device=device) + 0.5) / shape[1]).expand(shape)
        else:
            taus = torch.rand(shape, generator=generator, device=device)
        embedded = functional.relu(self.embedding(torch.cos(taus[:, :, None] * self.multiples)))
        quantiles = self.combine(features[:, None] * embedded, generator)
        return Outputs(quantiles.squeeze(3).transpose(1, 2), taus)

    def selection_values(
        self, features: torch.Tensor, outputs: Outputs, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        # Of quantiles of their own: the maximum would prefer those that were drawn high.
        return self.q_values(features, generator)


class DuelingHead(StreamHead):
    """Q values; without dueling, those of one stream, which may be noisy or have other units."""

    def means(self, outputs: Outputs) -> torch.Tensor:
        return outputs.values.squeeze(2)


def make_head(features_dim: int, actions: int, options: HeadOptions) -> Head:
    """The head that options describe."""
    kinds = {"q": DuelingHead, "c51": C51Head, "qr": QRHead, "iqn": IQNHead}
    return kinds[options.kind](features_dim, actions, options)
