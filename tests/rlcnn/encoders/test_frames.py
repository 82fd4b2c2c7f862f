"""Stacks of frames before a network for RGB images."""

from __future__ import annotations

import pytest
import torch

from envs.errors import UserError
from rlcnn.encoders import FrameEncoder, create_encoder
from rlcnn.encoders.frames import Differences, inflate, split_frames
from rlcnn.encoders.layers import RandomProjection, make_pool

NAME = "squeezenet1_1:features.4"
SIDE = 32


def images(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def encoder_for(channels: int, **options: object) -> FrameEncoder:
    torch.manual_seed(0)
    encoder = create_encoder(NAME, (channels, SIDE, SIDE), **options)
    assert isinstance(encoder, FrameEncoder)
    return encoder.eval()


@pytest.mark.parametrize(
    "channels, frame_channels, stack",
    [(1, None, 1), (3, None, 1), (4, None, 4), (12, None, 4), (3, 1, 3), (12, 1, 12)],
)
def test_frames_of_a_stack_are_distinguished(
    channels: int, frame_channels: int | None, stack: int
) -> None:
    encoder = encoder_for(channels, frame_channels=frame_channels)
    assert encoder.stack == stack
    assert encoder.frame_shape == (channels // stack, SIDE, SIDE)
    assert encoder.options["frame_channels"] == channels // stack


@pytest.mark.parametrize("channels", [4, 12])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"differences": True},
        {"projection": "none"},
        {"projection": "random", "features_dim": 8, "differences": True},
        {"pooling": "2x2"},
    ],
)
def test_forward_is_frames_encoded_once_and_combined(
    channels: int, options: dict[str, object]
) -> None:
    encoder = encoder_for(channels, **options)
    observations = images(2, channels, SIDE, SIDE)
    frames = observations.reshape(2 * 4, channels // 4, SIDE, SIDE)
    features = encoder.encode_frames(frames)
    assert features.shape == (8, encoder.frame_features)
    combined = encoder.combine(features.reshape(2, 4, -1))
    assert combined.shape == (2, encoder.features_dim)
    torch.testing.assert_close(encoder(observations), combined)


def test_features_of_the_frames_stand_side_by_side() -> None:
    encoder = encoder_for(12, projection="none", pooling="mean")
    observations = images(2, 12, SIDE, SIDE)
    alone = [encoder.encode_frames(observations[:, 3 * i : 3 * i + 3]) for i in range(4)]
    torch.testing.assert_close(encoder(observations), torch.cat(alone, dim=1))


def test_differences_are_those_of_neighbours() -> None:
    features = torch.tensor([[[1.0, 10.0], [2.0, 30.0], [5.0, 70.0]]])
    expected = torch.tensor([[[2.0, 30.0], [5.0, 70.0], [1.0, 20.0], [3.0, 40.0]]])
    assert torch.equal(Differences()(features), expected)
    plain = encoder_for(12, projection="none", pooling="mean")
    different = encoder_for(12, projection="none", pooling="mean", differences=True)
    observations = images(2, 12, SIDE, SIDE)
    a, b, c, d = plain(observations).chunk(4, dim=1)
    expected = torch.cat((b, c, d, b - a, c - b, d - c), dim=1)
    torch.testing.assert_close(different(observations), expected)


def test_grey_frames_are_seen_as_rgb_ones_without_colour() -> None:
    grey = encoder_for(4)
    rgb = encoder_for(12)
    observations = images(2, 4, SIDE, SIDE)
    in_colour = observations.repeat_interleave(3, dim=1)
    torch.testing.assert_close(grey(observations), rgb(in_colour))


def test_a_random_projection_is_fixed_and_follows_its_seed() -> None:
    one, same = RandomProjection(64, 32, seed=3), RandomProjection(64, 32, seed=3)
    assert torch.equal(one.weight, same.weight)
    assert not torch.equal(one.weight, RandomProjection(64, 32, seed=4).weight)
    assert not list(one.parameters())
    wide = RandomProjection(500, 2000, seed=0)
    x = torch.randn(20, 500)
    ratio = wide(x).norm(dim=1) / x.norm(dim=1)
    assert ((ratio - 1).abs() < 0.15).all()
    encoder = encoder_for(4, projection="random", features_dim=16)
    assert encoder.features_dim == 4 * 16
    assert "pool.random.weight" in encoder.state_dict()
    state = torch.get_rng_state()
    RandomProjection(8, 8, seed=0)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_learned_projection_sees_the_whole_stack() -> None:
    encoder = encoder_for(12, features_dim=24, pooling="mean")
    assert encoder.features_dim == 24
    assert encoder.get_submodule("projection.linear").weight.shape == (24, 4 * 128)


def test_poolings() -> None:
    maps = torch.arange(2 * 3 * 4 * 4, dtype=torch.float32).view(2, 3, 4, 4)
    pool, features = make_pool("flatten", (3, 4, 4))
    assert torch.equal(pool(maps), maps.flatten(1))
    assert features == 48
    pool, features = make_pool("mean", (3, 4, 4))
    assert torch.equal(pool(maps), maps.mean(dim=(2, 3)))
    assert features == 3
    pool, features = make_pool("2x2", (3, 4, 4))
    assert torch.equal(pool(maps)[:, 0], maps[:, 0, :2, :2].mean(dim=(1, 2)))
    assert features == 12
    tokens = torch.randn(2, 5, 7)
    pool, features = make_pool("mean", (5, 7))
    assert torch.equal(pool(tokens), tokens.mean(dim=1))
    assert features == 7
    with pytest.raises(UserError, match="'2x2' needs feature maps"):
        make_pool("2x2", (5, 7))


# Inflation.


def test_an_inflated_convolution_sees_a_still_stack_as_one_image() -> None:
    weight = torch.randn(8, 3, 5, 5)
    image, grey = torch.randn(2, 3, 9, 9), torch.randn(2, 1, 9, 9)
    convolve = torch.nn.functional.conv2d
    still = image.repeat(1, 4, 1, 1)
    torch.testing.assert_close(
        convolve(still, inflate(weight, 4, 3), padding=2),
        convolve(image, weight, padding=2),
        rtol=1e-4,
        atol=1e-4,
    )
    torch.testing.assert_close(
        convolve(grey.repeat(1, 4, 1, 1), inflate(weight, 4, 1), padding=2),
        convolve(grey.repeat(1, 3, 1, 1), weight, padding=2),
        rtol=1e-4,
        atol=1e-4,
    )


@pytest.mark.parametrize("channels", [4, 12])
def test_an_inflated_network_equals_the_rgb_one_on_still_grey_stacks(channels: int) -> None:
    rgb = encoder_for(3, projection="none")
    inflated = encoder_for(channels, projection="none", stacking="inflated")
    assert inflated.stack == 1
    assert inflated.frame_shape == (channels, SIDE, SIDE)
    # After the preprocessing, which for grey cannot have a mean and std for each colour.
    grey = torch.randn(2, 1, SIDE, SIDE)
    expected = rgb.trunk(grey.repeat(1, 3, 1, 1))
    torch.testing.assert_close(
        inflated.trunk(grey.repeat(1, channels, 1, 1)), expected, rtol=1e-4, atol=1e-5
    )


def test_an_inflated_network_equals_the_rgb_one_on_still_rgb_stacks() -> None:
    rgb = encoder_for(3, projection="none")
    inflated = encoder_for(12, projection="none", stacking="inflated")
    image = images(2, 3, SIDE, SIDE)
    expected = rgb(image)
    torch.testing.assert_close(inflated(image.repeat(1, 4, 1, 1)), expected, rtol=1e-4, atol=1e-5)


# Refusals.


@pytest.mark.parametrize(
    "channels, options, message",
    [
        (4, {"frame_channels": 3}, "divide the observation's 4 channels, not 3"),
        (4, {"frame_channels": 2}, r"must be 1 \(grey\) or 3 \(RGB\)"),
        (3, {"differences": True}, "differences need at least two frames"),
        (12, {"differences": True, "stacking": "inflated"}, "differences need at least two"),
        (4, {"stacking": "inflate"}, "not 'inflate'. Did you mean \"inflated\""),
        (4, {"projection": "lerned"}, "not 'lerned'. Did you mean \"learned\""),
        (4, {"differences": "yes"}, "differences must be True or False, not 'yes'"),
        (4, {"projection_seed": -1}, "projection_seed must be a whole number from 0, not -1"),
        (4, {"resize": -1}, "resize must be a positive whole number, not -1"),
        (4, {"pooling": "max"}, 'pooling must be "flatten", "mean", "cls", "patches" or a grid'),
        (4, {"pooling": "cls"}, "pooling 'cls' is for the tokens of a transformer"),
    ],
)
def test_options_that_do_not_fit_give_one_line(
    channels: int, options: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message) as refusal:
        encoder_for(channels, **options)
    assert "\n" not in str(refusal.value)


def test_other_observations_are_refused() -> None:
    encoder = encoder_for(12)
    with pytest.raises(ValueError, match=r"\(batch, \*\(12, 32, 32\)\), not \(2, 4, 32, 32\)"):
        encoder(images(2, 4, SIDE, SIDE))
    one_colour = encoder_for(3)
    with pytest.raises(ValueError, match=r"\(batch, \*\(3, 32, 32\)\), not \(2, 1, 32, 32\)"):
        one_colour(images(2, 1, SIDE, SIDE))
    with pytest.raises(TypeError, match="uint8"):
        encoder(torch.zeros(2, 12, SIDE, SIDE))
    assert split_frames(images(2, 12, 8, 8), (12, 8, 8), 4).shape == (8, 3, 8, 8)
