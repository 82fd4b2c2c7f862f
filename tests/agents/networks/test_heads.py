"""Heads: their formulas, noise, and sizes as in the papers."""

from __future__ import annotations

import math
from typing import Any, get_args

import pytest
import torch
from torch.nn import functional

from agents.networks.head_options import HeadName, HeadOptions
from agents.networks.heads import IQNHead, NoisyLinear, StreamHead, make_head

HEADS = get_args(HeadName)


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


FLAT, A = 3136, 18
SIZES: list[tuple[dict[str, Any], int, int]] = [
    # Behind 512 units: Mnih et al. 2015; Bellemare et al. 2017; Dabney et al. 2018a.
    ({"head": "q"}, 512, linear(512, A)),
    ({"head": "c51"}, 512, linear(512, A * 51)),
    ({"head": "qr"}, 512, linear(512, A * 200)),
    # Behind the convolutions: Wang et al. 2016; Dabney et al. 2018b.
    ({"head": "dueling"}, FLAT, 2 * linear(FLAT, 512) + linear(512, A) + linear(512, 1)),
    ({"head": "iqn"}, FLAT, linear(64, FLAT) + linear(FLAT, 512) + linear(512, A)),
    # Rainbow (Hessel et al. 2018), each weight and bias with a scale of noise.
    (
        {"head": "dueling-c51", "noisy": True},
        FLAT,
        2 * (2 * linear(FLAT, 512) + linear(512, A * 51) + linear(512, 51)),
    ),
    ({"head": "dueling-qr", "head_units": 0}, 512, linear(512, A * 200) + linear(512, 200)),
    # BTR (Clark et al. 2025) behind 6x6 maxima of 64 maps: noise in the streams alone.
    (
        {"head": "dueling-iqn", "noisy": True},
        2304,
        linear(64, 2304) + 2 * (2 * linear(2304, 512) + linear(512, A) + linear(512, 1)),
    ),
]


@pytest.mark.parametrize(("options", "features", "expected"), SIZES, ids=lambda v: str(v))
def test_parameters_are_as_many_as_in_the_papers(
    options: dict[str, Any], features: int, expected: int
) -> None:
    with torch.device("meta"):
        assert count(make_head(features, A, HeadOptions(**options))) == expected


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("noisy", [False, True])
def test_q_values_are_the_means_and_repeat_themselves(head: Any, noisy: bool) -> None:
    torch.manual_seed(0)
    made = make_head(6, 3, HeadOptions(head=head, noisy=noisy, head_units=8))
    features = torch.randn(4, 6)
    values = made.q_values(features)
    assert values.shape == (4, 3)
    assert values.dtype == torch.float32
    assert torch.equal(values, made.q_values(features))
    outputs = made.outputs(features).values
    if "c51" in head:
        outputs = outputs.softmax(dim=2) * torch.linspace(-10, 10, 51) * 51
    torch.testing.assert_close(values, outputs.mean(dim=2))
    draws = torch.Generator().manual_seed(0)
    drawn = [made.q_values(features, draws) for _ in range(2)]
    assert torch.equal(*drawn) == (not noisy and "iqn" not in head)


@pytest.mark.parametrize("head", ["dueling", "dueling-c51", "dueling-qr"])
def test_dueling_adds_the_value_to_centred_advantages(head: Any) -> None:
    made = make_head(6, 3, HeadOptions(head=head, head_units=8, quantiles=4, atoms=5))
    assert isinstance(made, StreamHead)
    assert made.value is not None
    features = torch.randn(4, 6)
    outputs = made.outputs(features).values
    value = made.value(features)
    torch.testing.assert_close(outputs.mean(dim=1), value)
    advantages = made.advantage(features).view(4, 3, -1)
    torch.testing.assert_close(outputs[:, 0] - outputs[:, 2], advantages[:, 0] - advantages[:, 2])


@pytest.mark.parametrize("first", [0, 1])
def test_iqn_embeds_levels_by_cosines(first: int) -> None:
    torch.manual_seed(0)
    head = make_head(6, 3, HeadOptions(head="iqn", head_units=8, first_cosine=first, cosines=5))
    assert isinstance(head, IQNHead)
    features, draws = torch.randn(4, 6), torch.Generator().manual_seed(0)
    quantiles, taus = head.outputs(features, draws, 7)
    assert taus is not None
    assert quantiles.shape == (4, 3, 7)
    expected = torch.rand(4, 7, generator=torch.Generator().manual_seed(0))
    assert torch.equal(taus, expected)
    for sample, place in ((0, 0), (3, 6)):
        tau = float(taus[sample, place])
        cosines = [math.cos(math.pi * i * tau) for i in range(first, first + 5)]
        embedded = functional.relu(head.embedding(torch.tensor(cosines)))
        hidden = functional.relu(head.advantage.hidden(features[sample] * embedded))  # type: ignore[misc]
        torch.testing.assert_close(quantiles[sample, :, place], head.advantage.output(hidden))
    even = head.outputs(features, None, 4).taus
    assert even is not None
    assert even[1].tolist() == [0.125, 0.375, 0.625, 0.875]


def test_noise_is_factorised_and_one_for_a_batch() -> None:
    torch.manual_seed(0)
    layer = NoisyLinear(6, 4, sigma0=0.5)
    bound = 1 / math.sqrt(6)
    assert layer.weight.abs().max() <= bound
    assert (layer.weight_sigma == 0.5 * bound).all()
    assert (layer.bias_sigma == 0.5 * bound).all()
    inputs = torch.randn(1, 6).expand(5, 6)
    torch.testing.assert_close(layer(inputs), functional.linear(inputs, layer.weight, layer.bias))
    noisy = layer(inputs, torch.Generator().manual_seed(3))
    torch.testing.assert_close(noisy, noisy[:1].expand_as(noisy))
    draws = torch.Generator().manual_seed(3)
    rows, columns = (torch.randn(n, generator=draws).double() for n in (4, 6))
    rows, columns = (n.sign() * n.abs() ** 0.5 for n in (rows, columns))
    weight = layer.weight.double() + layer.weight_sigma.double() * rows[:, None] * columns
    bias = layer.bias.double() + layer.bias_sigma.double() * rows
    expected = inputs.double() @ weight.T + bias
    torch.testing.assert_close(noisy.double(), expected, rtol=1e-5, atol=1e-6)
    noisy.sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in layer.parameters())
