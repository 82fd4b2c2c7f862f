"""Saliency in worlds where it is known which pixels decide, and of real encoders."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

from envs.errors import UserError
from rlcnn.encoders import create_encoder
from rlcnn.encoders.base import Encoder
from rlcnn.visualize.gallery.explanations import draw_strip
from rlcnn.visualize.gallery.options import PictureConfig
from rlcnn.visualize.gallery.source import Explained, PlayedGame, Source
from rlcnn.visualize.heat import heat_over, saliency_figure
from rlcnn.visualize.saliency import (
    COMPLETENESS,
    Scores,
    grad_cam,
    gradient,
    integrated_gradients,
    occlusion,
    strength,
    takes_pixels_as_floats,
)

SHAPE = (4, 40, 40)
# Channel, row and column of the pixels that decide about the two outputs.
DECIDING = torch.tensor([[2, 7, 30], [0, 20, 5]])
Method = Callable[[Scores, torch.Tensor, torch.Tensor], torch.Tensor]


def decide(images: torch.Tensor) -> torch.Tensor:
    """Two scores, each a smooth function of one pixel."""
    channel, row, column = DECIDING.T
    return torch.tanh(images[:, channel, row, column] / 255)


def random_images(batch: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(1, 256, (batch, *SHAPE), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("method", [gradient, integrated_gradients])
def test_gradients_lie_on_the_pixel_that_decides(method: Method) -> None:
    attributions = method(decide, random_images(), torch.tensor([0, 1]))
    assert attributions.dtype == torch.float32
    for image, place in zip(attributions, DECIDING, strict=True):
        assert image.nonzero().tolist() == [place.tolist()]
        assert image[tuple(place)] > 0


def test_occlusion_lies_on_the_squares_that_cover_the_pixel_that_decides() -> None:
    images = random_images()
    targets = torch.tensor([0, 1])
    attributions = occlusion(decide, images, targets, window=6, stride=2, frame_channels=1)
    for image, (channel, row, column) in zip(attributions, DECIDING.tolist(), strict=True):
        channels, rows, columns = image.nonzero().T
        assert set(channels.tolist()) == {channel}
        assert (rows - row).abs().max() < 6
        assert (columns - column).abs().max() < 6
        assert image.max() == image[channel, row, column] > 0


class Peak(Encoder):
    """A convolution that copies the image; its feature is the brightest pixel."""

    name = "peak"

    def __init__(self) -> None:
        super().__init__(SHAPE, {})
        self.features_dim = 1
        self.trunk = nn.Conv2d(4, 1, 1, bias=False)
        nn.init.ones_(self.trunk.weight)
        self.pool = nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten())
        self.projection = nn.Identity()


def test_grad_cam_lies_where_the_maps_are_strong() -> None:
    images = torch.zeros((2, *SHAPE), dtype=torch.uint8)
    images[0, 0, 3, 30] = images[1, 3, 35, 8] = 255
    encoder = Peak()
    with takes_pixels_as_floats(encoder):
        maps = grad_cam(encoder, encoder, "trunk", images, torch.zeros(2, dtype=torch.int64))
    for image, place in zip(maps, ((3, 30), (35, 8)), strict=True):
        # One map serves all frames of a stack that is encoded as one image.
        assert (image == image[0]).all()
        assert image[0].nonzero().tolist() == [list(place)]


@pytest.fixture(scope="module")
def network() -> nn.Sequential:
    torch.manual_seed(0)
    encoder = create_encoder("nature", SHAPE, features_dim=32)
    return nn.Sequential(encoder, nn.Linear(32, 5), nn.LogSoftmax(dim=1))


def test_integrated_gradients_sum_to_the_difference_of_the_scores(network: nn.Sequential) -> None:
    images, targets = random_images(), torch.tensor([4, 1])
    with takes_pixels_as_floats(network):
        attributions = integrated_gradients(network, images, targets, baseline=128.0, steps=2)
        grey = torch.full_like(images, 128)
        difference = (network(images) - network(grey)).gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(
        attributions.sum((1, 2, 3)), difference, rtol=COMPLETENESS, atol=1e-6
    )


def test_other_weights_give_other_maps(network: nn.Sequential) -> None:
    images, targets = random_images(), torch.tensor([4, 1])
    torch.manual_seed(7)
    other = nn.Sequential(create_encoder("nature", SHAPE, features_dim=32), *network[1:])
    methods: dict[str, Callable[[nn.Module], torch.Tensor]] = {
        "gradient": lambda net: gradient(net, images, targets),
        "integrated": lambda net: integrated_gradients(net, images, targets),
        "occlusion": lambda net: occlusion(net, images, targets, window=20, stride=20),
        "grad-cam": lambda net: grad_cam(net, net[0], "trunk.conv2", images, targets),  # type: ignore[index]
    }
    with takes_pixels_as_floats(network), takes_pixels_as_floats(other):
        for name, method in methods.items():
            maps = [method(net).flatten() for net in (network, network, other)]
            torch.testing.assert_close(maps[0], maps[1], msg=name)
            both = np.corrcoef(maps[0].numpy(), maps[2].numpy())
            assert abs(both[0, 1]) < 0.9, name


def test_nothing_of_the_network_changes(network: nn.Sequential) -> None:
    images, targets = random_images(), torch.tensor([4, 1])
    encoder = network[0]
    before = network(images)
    network.train()
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    with takes_pixels_as_floats(network):
        assert not network.training
        assert gradient(network, images, targets).any()
        grad_cam(network, encoder, "trunk.conv1", images, targets)
    assert all(part.training for part in network.modules())
    with pytest.raises(TypeError, match="encoders take uint8 observations"):
        network(images.float())
    assert torch.equal(network(images), before)
    assert all(parameter.grad is None for parameter in network.parameters())
    for parameter in network.parameters():
        parameter.requires_grad_(True)


def test_grad_cam_of_an_operation_and_of_frames_encoded_alone() -> None:
    torch.manual_seed(0)
    encoder = create_encoder("resnet18:layer2", SHAPE, pooling="mean", features_dim=4)
    images, targets = random_images(), torch.tensor([0, 3])
    with takes_pixels_as_floats(encoder):
        last = grad_cam(encoder, encoder, "layer2.1.relu_1", images, targets)
        module = grad_cam(encoder, encoder, "layer2", images, targets)
        addition = grad_cam(encoder, encoder, "layer2.1.add", images, targets)
    # A module means its last node.
    assert torch.equal(last, module)
    assert addition.shape == images.shape
    assert not torch.equal(addition, module)
    # Every frame has a map of its own.
    assert not torch.equal(module[:, 0], module[:, 1])


@pytest.mark.parametrize(
    ("name", "node", "message"),
    [
        ("nature", "trunk.conv9", 'encoder "nature" has no node "trunk.conv9". Did you mean'),
        ("nature", "projection", r"has no feature maps but an output of shape \(512,\): Grad-CAM"),
        ("resnet18:avgpool", "avgpool", "has maps of 1x1 pixel, which show no place: name an"),
    ],
)
def test_nodes_without_places_are_refused_in_one_line(name: str, node: str, message: str) -> None:
    encoder = create_encoder(name, SHAPE)
    with (
        takes_pixels_as_floats(encoder),
        pytest.raises(UserError, match=message) as refusal,
    ):
        grad_cam(encoder, encoder, node, random_images(), torch.tensor([0, 1]))
    assert "\n" not in str(refusal.value)


def test_an_encoder_that_the_scores_do_not_use_is_refused() -> None:
    encoder = create_encoder("nature", SHAPE)
    with pytest.raises(UserError, match=r'node "trunk" of encoder "nature" is not used'):
        grad_cam(decide, encoder, "trunk", random_images(), torch.tensor([0, 1]))


def test_a_square_larger_than_the_image_is_refused() -> None:
    with pytest.raises(UserError, match="a square of 41 pixels every 4 pixels cannot cover images"):
        occlusion(decide, random_images(), torch.tensor([0, 1]), window=41)


@pytest.mark.parametrize("method", [gradient, integrated_gradients])
def test_scores_without_a_gradient_are_refused_but_for_occlusion(method: Method) -> None:
    images, targets = random_images(), torch.tensor([0, 1])

    def quantised(pixels: torch.Tensor) -> torch.Tensor:
        return decide(pixels.detach()).mul(8).round()

    with pytest.raises(UserError, match="the scores have no gradient by the pixels, as those of"):
        method(quantised, images, targets)
    assert occlusion(quantised, images, targets).any()


def test_without_captum_only_gradients_remain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "captum", None)
    images, targets = random_images(), torch.tensor([0, 1])
    assert gradient(decide, images, targets).any()
    with pytest.raises(UserError, match=r'pip install "rlcnn\[visualize\]"'):
        integrated_gradients(decide, images, targets)


def test_strength_is_that_of_frames_whatever_the_sign() -> None:
    attributions = torch.zeros(1, 6, 2, 2)
    attributions[0, 3:, 1, 0] = torch.tensor([1.0, -2.0, 0.5])
    expected = np.zeros((1, 2, 2, 2))
    expected[0, 1, 1, 0] = 3.5
    np.testing.assert_array_equal(strength(attributions, frames=2), expected)


def test_heat_is_brightest_on_the_strongest_pixel_and_absent_without_saliency() -> None:
    image = np.full((9, 9, 3), 200, np.uint8)
    weights = np.zeros((9, 9), np.float32)
    np.testing.assert_array_equal(heat_over(image, weights), 90)
    weights[4, 5] = 2
    drawn = heat_over(image, weights).astype(int)
    # Inferno's brightest colour, a pale yellow.
    assert drawn[4, 5].sum() > 3 * 200
    drawn[4, 5] = 90
    assert (drawn == 90).all()


@pytest.mark.parametrize(("frames", "channels"), [(1, 3), (4, 1), (2, 3)])
def test_a_sheet_has_a_row_per_image_and_a_column_per_method(frames: int, channels: int) -> None:
    images = np.random.default_rng(0).integers(256, size=(2, frames * channels, 8, 8), dtype="u1")
    maps = np.ones((2, frames, 8, 8), np.float32)
    figure = saliency_figure(images, {"gradient": maps, "occlusion": maps}, labels=["a", "b"])
    *cells, scale = figure.axes
    assert len(cells) == 6
    assert [axis.get_title() for axis in cells[1:3]] == ["gradient", "occlusion"]
    assert [axis.get_ylabel() for axis in cells[::3]] == ["a", "b"]
    assert scale.get_xlabel() == "strength, divided by the map's 99.5th percentile"


@pytest.mark.parametrize(("rewarded", "first"), [(9, 6), (1, 1), (19, 14), (None, 1)])
def test_a_strip_ends_soon_after_the_largest_reward_and_shows_the_deciding_pixel(
    rewarded: int | None, first: int
) -> None:
    rewards = torch.zeros(20)
    if rewarded is not None:
        rewards[rewarded - 1] = 5
    actions = torch.arange(20) % 2
    game = PlayedGame(random_images(20)[:, :3], actions, rewards)
    explained = Explained(
        decide,
        create_encoder("nature", (3, 40, 40)),
        ("LEFT", "RIGHT"),
        "Q value",
        frame_channels=3,
        play=lambda seed: game,
    )
    config = PictureConfig(pictures=("strip",), queries=4)
    source = Source(config, lambda *_: {}, explain=lambda: nullcontext(explained))
    (sheet,) = draw_strip(source, Console(quiet=True))
    *axes, _ = sheet.figure.axes
    assert len(axes) == 8
    titles = [axis.get_title() for axis in axes[:4]]
    steps = range(first, first + 8, 2)
    assert titles == [f"step {step}\n{('LEFT', 'RIGHT')[(step - 1) % 2]}" for step in steps]
    assert (f"gets 5 points in step {rewarded}" in sheet.caption) == (rewarded is not None)
    for step, axis in zip(steps, axes[4:], strict=True):
        drawn = axis.get_images()[0].get_array()
        brightest = np.unravel_index(drawn.sum(axis=-1).argmax(), drawn.shape[:2])
        _, row, column = DECIDING[(step - 1) % 2].tolist()
        # A slight blur and the scale's end make its neighbours as bright.
        assert np.abs(np.subtract(brightest, (row, column))).max() <= 1
