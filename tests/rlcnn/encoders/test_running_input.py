"""Running mean and variance, and encoders that normalise pixels by them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.picture_files import images
from torch import nn

from envs.errors import UserError
from rlcnn.encoders import Encoder, Preprocessing, create_encoder
from rlcnn.encoders.freezing import PartlyFrozen, layers_before, pretrained_layers
from rlcnn.encoders.running_moments import RunningMoments
from rlcnn.weights.load import load_encoder, load_into, save_encoder

SMALL = (4, 44, 44)
RUNNING = {"input_norm": "running"}


def moments_of(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance, float64, of values (n, ...) and of one value of mean 0 and variance 1."""
    count = len(values) + 1
    mean = values.sum(axis=0) / count
    return mean, (1 + np.square(values).sum(axis=0)) / count - np.square(mean)


def filled(encoder: Encoder, frames: torch.Tensor) -> Encoder:
    encoder.train().preprocessing.observe(frames)
    return encoder.eval()


@pytest.mark.parametrize("shape", [(), (3, 2)])
def test_moments_of_batches_are_those_of_all_values(shape: tuple[int, ...]) -> None:
    generator, moments = np.random.default_rng(0), RunningMoments(shape)
    batches = [generator.normal(7, 0.5, (n, *shape)) for n in (1, 40, 7)]
    for batch in map(torch.as_tensor, batches):
        moments.merge(batch.mean(dim=0), batch.var(dim=0, correction=0), len(batch))
    mean, variance = moments_of(np.concatenate(batches))
    np.testing.assert_allclose(moments.mean, mean, rtol=1e-12)
    np.testing.assert_allclose(moments.variance, variance, rtol=1e-12)
    values = torch.as_tensor(batches[1], dtype=torch.float32)
    expected = (batches[1] - mean) / np.sqrt(variance + 1e-5)
    np.testing.assert_allclose(moments.normalise(values), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(moments.restore(moments.normalise(values)), values)
    assert moments.normalise(values).dtype == torch.float32


@pytest.mark.parametrize("block", [1, 4])
def test_each_pixel_is_normalised_by_the_frames_so_far(block: int) -> None:
    layer = Preprocessing((6, 8, 8), running=True, block=block)
    frames = [images(n, 3, 8, 8, seed=n) for n in (5, 300)]
    # A pixel that never changes, and one that changes once.
    for part in frames:
        part[:, :, 0, 0] = 9
    frames[1][7, 1, 0, 0] = 255
    stacks = images(2, 6, 8, 8)
    torch.testing.assert_close(layer(stacks), Preprocessing((6, 8, 8), block=block)(stacks))
    for part in frames:
        layer.observe(part)
    seen = np.concatenate(frames).astype(np.float64) / 255
    mean, variance = (np.tile(each, (2, 1, 1)) for each in moments_of(seen))
    pixels = (stacks.numpy() / 255 - mean) / np.sqrt(variance + 1e-5)
    expected = torch.as_tensor(pixels.clip(-5, 5), dtype=torch.float32)
    normalised = layer(stacks)
    assert normalised.is_contiguous(memory_format=torch.channels_last)
    assert (expected.abs() == 5).any()
    if block > 1:
        expected = nn.functional.pixel_unshuffle(expected, block)
    torch.testing.assert_close(normalised, expected, rtol=1e-4, atol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(layer(stacks), normalised.bfloat16())
    before = copy.deepcopy(layer.state_dict())
    layer.eval().observe(images(9, 3, 8, 8))
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())


def test_running_statistics_take_the_place_of_a_mean_alone() -> None:
    wrong: list[dict[str, Any]] = [{"scaled": False}, {"resize": 8}, {"mean": [0], "std": [1]}]
    for options in wrong:
        with pytest.raises(ValueError, match="running is for scaled pixels"):
            Preprocessing((1, 16, 16), running=True, **options)


@pytest.mark.parametrize("name", ["nature", "impala"])
def test_an_encoder_sees_normalised_pixels(name: str) -> None:
    torch.manual_seed(0)
    encoder = create_encoder(name, SMALL, **RUNNING)
    plain = create_encoder(name, SMALL)
    assert encoder.num_parameters() == plain.num_parameters()
    assert encoder.macs() == plain.macs()
    frames, seen = images(50, 1, *SMALL[1:]), images(3, *SMALL)
    filled(encoder, frames)
    moments = encoder.preprocessing.moments
    assert moments is not None
    pixels = moments.normalise(seen.double() / 255).clamp(-5, 5).float()
    block = encoder.preprocessing.block
    if block > 1:
        # Blocks of pixels are channels.
        pixels = nn.functional.pixel_unshuffle(pixels, block)
    features = encoder.projection(encoder.pool(encoder.trunk(pixels)))
    torch.testing.assert_close(encoder(seen), features, rtol=1e-4, atol=1e-4)
    compiled = torch.compile(encoder, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(seen), encoder(seen))


def test_files_have_the_statistics(tmp_path: Path) -> None:
    encoder, seen = create_encoder("nature", SMALL, **RUNNING), images(3, *SMALL)
    filled(encoder, images(20, 1, *SMALL[1:]))
    save_encoder(encoder, tmp_path / "encoder.safetensors")
    for loaded in (
        load_encoder(tmp_path / "encoder.safetensors"),
        create_encoder("nature", SMALL, **RUNNING),
    ):
        load_into(loaded, tmp_path / "encoder.safetensors")
        assert torch.equal(loaded.eval()(seen), encoder(seen))
    with pytest.raises(UserError, match="Give --encoder-options input_norm running"):
        load_into(create_encoder("nature", SMALL), tmp_path / "encoder.safetensors")


@pytest.mark.parametrize(
    "freeze", [pretrained_layers, lambda encoder: layers_before(encoder, "trunk.conv2")]
)
def test_frozen_layers_keep_the_statistics(freeze: Any) -> None:
    class Network(PartlyFrozen):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = create_encoder("nature", SMALL, **RUNNING)

    network = Network()
    network.freeze(freeze(network.encoder))
    network.train()
    network.encoder.preprocessing.observe(images(5, 1, *SMALL[1:]))
    assert network.encoder.preprocessing.moments.count == 1  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["lenet", "resnet18"])
def test_an_encoder_with_a_mean_of_its_own_or_without_the_option_refuses_it(name: str) -> None:
    with pytest.raises(UserError, match='has no option "input_norm"'):
        create_encoder(name, (3, 64, 64), **RUNNING)
    with pytest.raises(UserError, match='input_norm must be one of "none", "running", not True'):
        create_encoder("nature", SMALL, input_norm=True)
