"""Feature maps flattened into vectors, against torch's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rlcnn.encoders.layers import Flatten


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_gradients_are_those_of_torchs_and_lie_in_memory_as_the_maps_do(
    memory_format: torch.memory_format,
) -> None:
    torch.manual_seed(0)
    weight = torch.randn(5 * 3 * 4)
    gradients = []
    for flatten in (Flatten(), nn.Flatten()):
        maps = torch.arange(-60.0, 60.0).view(2, 5, 3, 4).contiguous(memory_format=memory_format)
        maps.requires_grad_()
        vectors = flatten(maps.relu())
        (vectors * weight).sum().backward()
        assert torch.equal(vectors, maps.relu().flatten(1))
        gradients.append(maps.grad)
    assert torch.equal(*gradients)

    arrived: list[torch.Tensor] = []
    maps = torch.rand(2, 5, 3, 4).contiguous(memory_format=memory_format).requires_grad_()
    maps.register_hook(arrived.append)
    (Flatten()(maps) * weight).sum().backward()
    assert arrived[0].is_contiguous(memory_format=memory_format)


def test_what_is_no_map_is_flattened_too() -> None:
    tokens = torch.rand(2, 3, 4, requires_grad=True)
    assert torch.equal(Flatten()(tokens), tokens.flatten(1))


def test_compiling_changes_nothing() -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), Flatten()).to(
        memory_format=torch.channels_last
    )
    pictures = torch.rand(2, 1, 8, 8)
    gradients = [
        torch.autograd.grad(run(pictures).square().sum(), list(layers.parameters()))
        for run in (layers, torch.compile(layers, backend="aot_eager", fullgraph=True))
    ]
    for mine, its in zip(*gradients, strict=True):
        assert torch.equal(mine, its)
