"""The classic classification networks: their published figures and rules."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

from rlcnn.encoders import Encoder, Preprocessing, create_encoder
from rlcnn.encoders.alexnet_2012 import ResponseNorm
from rlcnn.encoders.base import output_shape
from rlcnn.encoders.cifar_resnet import PaddedIdentity, ResidualUnit

CIFAR = (3, 32, 32)


def built(name: str, shape: tuple[int, int, int], **options: object) -> Encoder:
    """An encoder without values, for tests of its shapes."""
    with torch.device("meta"):
        return create_encoder(name, shape, **options)


def with_classes(encoder: Encoder, classes: int) -> int:
    return encoder.num_parameters() + (encoder.features_dim + 1) * classes


def node_shapes(encoder: Encoder, nodes: list[str]) -> list[tuple[int, ...]]:
    extractor = create_feature_extractor(
        encoder.to("meta"), nodes, tracer_kwargs={"leaf_modules": [Preprocessing]}
    )
    image = torch.zeros((2, *encoder.observation_shape), dtype=torch.uint8, device="meta")
    outputs = extractor(image)
    return [tuple(outputs[node].shape[1:]) for node in nodes]


# CIFAR ResNets.


# The plain network has the same layers: its shortcuts had no parameters.
@pytest.mark.parametrize("shortcut", ["identity", "none"])
@pytest.mark.parametrize(
    "depth, parameters",
    [(20, 269_722), (56, 853_018), pytest.param(110, 1_727_962, marks=pytest.mark.slow)],
)
def test_cifar_resnets_have_the_published_size(depth: int, parameters: int, shortcut: str) -> None:
    encoder = built("cifar_resnet", CIFAR, depth=depth, shortcut=shortcut)
    assert with_classes(encoder, 10) == parameters
    assert encoder.features_dim == 64
    convolutions = [m for m in encoder.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == depth - 1
    stages = ["trunk.conv", "trunk.stage1", "trunk.stage2", "trunk.stage3"]
    assert node_shapes(encoder, stages) == [(16, 32, 32), (16, 32, 32), (32, 16, 16), (64, 8, 8)]


def test_resnet9_has_the_published_size() -> None:
    encoder = built("resnet9", CIFAR)
    # The source's classifier has no bias.
    assert with_classes(encoder, 10) - 10 == 6_573_120
    layers = ["trunk.prep", "trunk.residual1", "trunk.pool2", "trunk.residual3"]
    assert node_shapes(encoder, layers) == [(64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4)]


def test_option_a_keeps_every_second_pixel_and_adds_zeros() -> None:
    image = torch.randn(2, 16, 6, 6)
    output = PaddedIdentity(16, 32, stride=2)(image)
    assert torch.equal(output[:, 8:24], image[:, :, ::2, ::2])
    assert not output[:, :8].any()
    assert not output[:, 24:].any()


def unit_and_parts(shortcut: str, **options: float) -> tuple[torch.Tensor, ...]:
    """A unit's output, its residual, its input and the unit itself."""
    torch.manual_seed(0)
    unit = ResidualUnit(16, 16, 1, shortcut, options.get("gate_bias", -6.0))  # type: ignore[arg-type]
    unit.eval()
    x = torch.randn(2, 16, 5, 5)
    gate = unit.gate(x) if hasattr(unit, "gate") else torch.zeros(())
    return unit(x), unit.residual(x), x, gate


@pytest.mark.parametrize(
    "shortcut, expected",
    [
        ("identity", lambda f, x, g: f + x),
        ("none", lambda f, x, g: f),
        ("constant", lambda f, x, g: f / 2 + x / 2),
        ("exclusive_gate", lambda f, x, g: g * f + (1 - g) * x),
        ("shortcut_gate", lambda f, x, g: f + (1 - g) * x),
        ("dropout", lambda f, x, g: f + x),  # in evaluation mode
    ],
)
def test_shortcuts_compute_what_the_paper_says(shortcut: str, expected: object) -> None:
    output, residual, x, gate = unit_and_parts(shortcut)
    assert callable(expected)
    torch.testing.assert_close(output, expected(residual, x, gate).relu())


def test_no_path_goes_round_the_layers_of_the_plain_network() -> None:
    for shortcut in ("none", "identity"):
        encoder = create_encoder("cifar_resnet", CIFAR, depth=8, shortcut=shortcut).eval()
        for unit in encoder.modules():
            if isinstance(unit, ResidualUnit):
                nn.init.zeros_(unit.residual.bn2.weight)  # type: ignore[union-attr, arg-type]
        image = torch.randint(0, 256, (1, *CIFAR), dtype=torch.uint8)
        assert encoder(image).any().item() == (shortcut == "identity")


def test_dropout_takes_half_of_the_shortcut_while_training() -> None:
    unit = ResidualUnit(16, 16, 1, "dropout", 0.0)
    nn.init.zeros_(unit.residual.bn2.weight)  # type: ignore[union-attr, arg-type]
    output = unit(torch.ones(8, 16, 8, 8))
    assert set(output.unique().tolist()) == {0.0, 2.0}
    assert 0.4 < (output == 0).float().mean() < 0.6


@pytest.mark.parametrize("shortcut", ["exclusive_gate", "shortcut_gate"])
@pytest.mark.parametrize("bias, open_by", [(-6.0, 0.0025), (0.0, 0.5)])
def test_gates_start_as_their_bias_says(shortcut: str, bias: float, open_by: float) -> None:
    encoder = create_encoder("cifar_resnet", CIFAR, depth=8, shortcut=shortcut, gate_bias=bias)
    gates = [m.gate for m in encoder.modules() if isinstance(m, ResidualUnit)]
    assert len(gates) == 3
    for gate in gates:
        assert (gate.conv.bias == bias).all()
        zeros = torch.zeros(1, gate.conv.in_channels, 4, 4)
        torch.testing.assert_close(gate(zeros).mean(), torch.tensor(open_by), atol=1e-4, rtol=0.01)


def test_only_gates_and_convolutions_add_parameters() -> None:
    sizes = {
        shortcut: built("cifar_resnet", CIFAR, shortcut=shortcut).num_parameters()
        for shortcut in ("identity", "constant", "dropout", "shortcut_gate", "conv")
    }
    assert sizes["constant"] == sizes["dropout"] == sizes["identity"]
    # 1x1 convolutions of nine units: 3 of 16 -> 16, one of 16 -> 32, 2 of 32 -> 32 and so on.
    weights = 3 * 16 * 16 + 16 * 32 + 2 * 32 * 32 + 32 * 64 + 2 * 64 * 64
    outputs = 3 * (16 + 32 + 64)
    assert sizes["shortcut_gate"] == sizes["identity"] + weights + outputs
    assert sizes["conv"] == sizes["identity"] + weights + 2 * outputs


# AlexNet in two towers.


def test_alexnet_2012_has_the_published_shapes_and_size() -> None:
    encoder = built("alexnet_2012", (3, 227, 227))
    assert with_classes(encoder, 1000) == 60_965_224
    layers = ["conv1", "pool1", "conv2", "pool2", "conv3", "conv4", "conv5", "pool5"]
    assert node_shapes(encoder, [f"trunk.{layer}" for layer in layers]) == [
        (96, 55, 55),
        (96, 27, 27),
        (256, 27, 27),
        (256, 13, 13),
        (384, 13, 13),
        (384, 13, 13),
        (256, 13, 13),
        (256, 6, 6),
    ]
    assert encoder.features_dim == 4096


def test_towers_meet_in_the_third_convolution_only() -> None:
    encoder = create_encoder("alexnet_2012", (3, 67, 67), features_dim=8)
    # One position, random and positive, so that no ReLU hides a connection.
    for parameter in encoder.trunk.parameters():
        parameter.data.abs_()
    image = torch.rand(1, 3, 67, 67)

    def sees(first: str, last: str, channels: int) -> bool:
        """Whether the first half of ``last``'s maps depends on the second half of ``first``'s."""
        names = [name for name, _ in encoder.trunk.named_children()]
        x = image
        for name in names[: names.index(first) + 1]:
            x = encoder.trunk.get_submodule(name)(x)
        x = x.detach().requires_grad_()
        y = x
        for name in names[names.index(first) + 1 : names.index(last) + 1]:
            y = encoder.trunk.get_submodule(name)(y)
        (gradient,) = torch.autograd.grad(y[:, : y.shape[1] // 2].sum(), x)
        return bool(gradient[:, channels // 2 :].any())

    assert not sees("relu1", "conv2", 96)
    assert not sees("relu2", "pool2", 256)
    assert sees("pool2", "conv3", 256)
    assert not sees("relu3", "pool5", 384)


@pytest.mark.parametrize("towers", [1, 2])
def test_response_normalisation_is_the_papers_equation(towers: int) -> None:
    k, n, alpha, beta = 2, 5, 1e-4, 0.75
    # Large, so that alpha times the sum of squares is not lost beside k.
    a = 200 * torch.rand(2, 12, 3, 3, generator=torch.Generator().manual_seed(0))
    expected = torch.empty_like(a)
    per_tower = 12 // towers
    for i in range(12):
        start = i // per_tower * per_tower
        low, high = max(start, i - n // 2), min(start + per_tower - 1, i + n // 2)
        total = (a[:, low : high + 1] ** 2).sum(dim=1)
        expected[:, i] = a[:, i] / (k + alpha * total) ** beta
    torch.testing.assert_close(ResponseNorm(towers)(a), expected)


# ZFNet.


def test_zfnet_has_the_published_shapes() -> None:
    encoder = built("zfnet", (3, 224, 224))
    layers = ["conv1", "pool1", "conv2", "pool2", "conv3", "conv4", "conv5", "pool5"]
    assert node_shapes(encoder, [f"trunk.{layer}" for layer in layers]) == [
        (96, 110, 110),
        (96, 55, 55),
        (256, 26, 26),
        (256, 13, 13),
        (384, 13, 13),
        (384, 13, 13),
        (256, 13, 13),
        (256, 6, 6),
    ]
    # AlexNet's, but 7x7 filters in the first layer and no halves in the second, fourth and fifth.
    convolutions = (
        (3 * 49 + 1) * 96
        + (96 * 25 + 1) * 256
        + (256 * 9 + 1) * 384
        + (384 * 9 + 1) * 384
        + (384 * 9 + 1) * 256
    )
    linear = (9216 + 1) * 4096 + (4096 + 1) * 4096 + (4096 + 1) * 1000
    assert with_classes(encoder, 1000) == convolutions + linear == 62_357_608


@pytest.mark.parametrize("name", ["alexnet_2012", "zfnet"])
def test_dropout_is_for_training(name: str) -> None:
    shape = (3, 67, 67)
    encoder = create_encoder(name, shape, features_dim=64)
    image = torch.randint(0, 256, (2, *shape), dtype=torch.uint8)
    assert not torch.equal(encoder(image), encoder(image))
    encoder.eval()
    assert torch.equal(encoder(image), encoder(image))
    assert output_shape(encoder.trunk, shape)[0] == 256
