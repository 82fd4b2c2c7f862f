"""Options of encoders that normalise: layer and spectral normalisation, and pooling by maxima."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from support.picture_files import images
from torch import nn

from envs.errors import UserError
from rlcnn.encoders import Encoder, create_encoder
from rlcnn.encoders.freezing import layers_before
from rlcnn.weights.load import load_into, save_encoder

ATARI = (4, 84, 84)
BTR: dict[str, Any] = {
    "width": 2,
    "pooling": "adaptive_max",
    "spectral_norm": "residual",
    "features_dim": 0,
}


def randomised(encoder: Encoder) -> Encoder:
    """The encoder with scales and shifts that are not 1 and 0."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in encoder.named_parameters():
        if "norm" in name:
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    return encoder


class ChannelsLast(nn.Module):
    """flax's ``LayerNorm``: over the last axis of (batch, height, width, channels)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=1e-6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x.movedim(1, -1)).movedim(-1, 1) if x.ndim == 4 else self.norm(x)


def plain_nature(norm: str) -> nn.Sequential:
    def normalise(*shape: int) -> nn.Module:
        return nn.LayerNorm(shape) if norm == "layer" else ChannelsLast(shape[0])

    return nn.Sequential(
        *(nn.Conv2d(4, 32, 8, 4), normalise(32, 20, 20), nn.ReLU()),
        *(nn.Conv2d(32, 64, 4, 2), normalise(64, 9, 9), nn.ReLU()),
        *(nn.Conv2d(64, 64, 3, 1), normalise(64, 7, 7), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(3136, 512), normalise(512), nn.ReLU()),
    )


class PlainBlock(nn.Module):
    def __init__(self, channels: int, wrap: Any) -> None:
        super().__init__()
        self.conv1 = wrap(nn.Conv2d(channels, channels, 3, padding=1))
        self.conv2 = wrap(nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv2(self.conv1(x.relu()).relu())


def plain_btr() -> nn.Sequential:
    """The convolutions of BTR's code: spectral normalisation in the residual blocks alone."""
    wrap = torch.nn.utils.parametrizations.spectral_norm
    layers: list[nn.Module] = []
    for inputs, channels in ((4, 32), (32, 64), (64, 64)):
        layers += [nn.Conv2d(inputs, channels, 3, padding=1), nn.MaxPool2d(3, 2, padding=1)]
        layers += [PlainBlock(channels, wrap), PlainBlock(channels, wrap)]
    return nn.Sequential(*layers, nn.ReLU(), nn.AdaptiveMaxPool2d((6, 6)), nn.Flatten())


def assert_equal_networks(encoder: Encoder, plain: nn.Module) -> None:
    """The same features and gradients with the same parameters, in training."""
    assert encoder.num_parameters() == sum(p.numel() for p in plain.parameters())
    tensors = [*plain.parameters(), *plain.buffers()]
    own = [*encoder.parameters(), *list(encoder.buffers())[1:]]
    with torch.no_grad():
        for theirs, ours in zip(tensors, own, strict=True):
            theirs.copy_(ours)
    seen = images(3, *ATARI)
    features, expected = encoder(seen), plain(seen.float() / 255)
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)
    weight = torch.randn(features.shape, generator=torch.Generator().manual_seed(2))
    for result in (features, expected):
        (result * weight).sum().backward()
    for ours, theirs in zip(encoder.parameters(), plain.parameters(), strict=True):
        assert ours.grad is not None
        assert theirs.grad is not None
        scale = theirs.grad.abs().max().item()
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=0, atol=1e-3 * scale + 1e-6)


@pytest.mark.parametrize(
    ("norm", "parameters"),
    [("none", 1_684_128), ("layer", 1_727_392), ("layer_channels", 1_685_472)],
)
def test_nature_equals_a_plain_network(norm: str, parameters: int) -> None:
    torch.manual_seed(0)
    encoder = randomised(create_encoder("nature", ATARI, norm=norm))
    assert encoder.num_parameters() == parameters
    if norm == "none":
        assert encoder.spec()["options"] == {"features_dim": 512}
        return
    encoder.to(memory_format=torch.channels_last)
    assert_equal_networks(encoder, plain_nature(norm))


def test_impala_with_btrs_options_equals_a_plain_network() -> None:
    torch.manual_seed(0)
    encoder = create_encoder("impala", ATARI, **BTR)
    assert encoder.features_dim == 2_304
    assert encoder.num_parameters() == 389_024
    assert encoder.macs() == 204_797_952
    assert_equal_networks(encoder, plain_btr())


def test_residual_filters_have_spectral_norm_1() -> None:
    torch.manual_seed(0)
    encoder = create_encoder("impala", (4, 44, 44), spectral_norm="residual")
    block: Any = encoder.get_submodule("trunk.section2.block1")
    with torch.no_grad():
        block.conv1.parametrizations.weight.original.mul_(5)
        for _ in range(50):
            encoder(images(1, 4, 44, 44))
    encoder.eval()
    largest = torch.linalg.matrix_norm(block.conv1.weight.flatten(1), ord=2)
    assert largest.item() == pytest.approx(1, abs=1e-3)
    first = encoder.get_submodule("trunk.section2.conv")
    assert not hasattr(first, "parametrizations")


@pytest.mark.parametrize("norm", ["layer", "layer_channels"])
def test_impala_normalises_before_every_relu(norm: str) -> None:
    encoder = create_encoder("impala", ATARI, norm=norm)
    channels = [(16, 42), (32, 21), (32, 11)]
    each = [c * (side**2 if norm == "layer" else 1) for c, side in channels]
    values = 4 * sum(each) + each[-1] + 256
    assert encoder.num_parameters() == 1_089_232 + 2 * values


VARIANTS = [
    ("nature", {"norm": "layer"}),
    ("nature", {"norm": "layer_channels", "features_dim": 0}),
    ("impala", {"norm": "layer", "spectral_norm": "residual"}),
    ("impala", BTR),
]
every_variant = pytest.mark.parametrize("name, options", VARIANTS)
SMALL = (4, 44, 44)


@every_variant
def test_copies_files_and_nodes_work(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder, seen = randomised(create_encoder(name, SMALL, **options)), images(2, *SMALL)
    # Moves the estimates of spectral norms.
    encoder(seen).sum().backward()
    encoder.eval()
    expected = encoder(seen)
    assert torch.equal(copy.deepcopy(encoder)(seen), expected)
    save_encoder(encoder, tmp_path / "encoder.safetensors")
    loaded = create_encoder(name, SMALL, **options).eval()
    load_into(loaded, tmp_path / "encoder.safetensors")
    assert torch.equal(loaded(seen), expected)
    node = "trunk.conv3" if name == "nature" else "trunk.section3"
    frozen = layers_before(encoder, node)
    names = {id(p): n for n, p in encoder.named_parameters()}
    assert all("3" not in names[id(p)] for p in frozen.parameters)
    trained = [
        n for n, p in encoder.named_parameters() if all(p is not f for f in frozen.parameters)
    ]
    assert trained
    assert all("3" in n or n.startswith(("projection", "trunk.norm.")) for n in trained)


@pytest.mark.parametrize(
    ("name", "shape", "options", "said"),
    [
        ("nature", SMALL, {"norm": "batch"}, 'norm must be one of "none", "layer", "layer_chann'),
        ("impala", SMALL, {"norm": True}, 'norm must be one of "none", "layer", "layer_channels"'),
        ("impala", SMALL, {"spectral_norm": "all"}, 'spectral_norm must be one of "none", "resid'),
        ("impala", SMALL, {"pooling": "max"}, "\"adaptive_max\", not 'max'"),
        ("impala", (4, 40, 44), BTR, "finer than the feature maps: 5x6"),
        ("impala", SMALL, {"features_dim": -1}, "features_dim must be a positive whole number"),
        ("nature", SMALL, {"features_dim": False}, "features_dim must be a positive whole number"),
    ],
)
def test_wrong_options_are_refused(
    name: str, shape: tuple[int, int, int], options: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError) as refusal:
        create_encoder(name, shape, **options)
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)
