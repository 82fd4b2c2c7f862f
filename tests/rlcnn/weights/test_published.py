"""Weights of published networks in backbones."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file
from support.weights import RGB, SHAPE, equal, refusal
from torchvision import models

from envs.errors import UserError
from rlcnn.encoders import Encoder, create_encoder
from rlcnn.weights.load import load_encoder, load_into, save_encoder

BACKBONE = "squeezenet1_1:features.4"


def backbone(shape: tuple[int, int, int], name: str = BACKBONE, **options: Any) -> Encoder:
    return create_encoder(name, shape, **options).eval()


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A whole network of torchvision, as it would be downloaded."""
    torch.manual_seed(1)
    path = tmp_path / "squeezenet1_1.pth"
    torch.save(models.squeezenet1_1(weights=None).state_dict(), path)
    return path


def test_a_published_network_loads_up_to_the_node(published: Path) -> None:
    encoder = backbone((4, 40, 40))
    report = load_into(encoder, published)
    state = torch.load(published, weights_only=True)
    trunk = [name for name in encoder.state_dict() if name.startswith("trunk.")]
    assert report.loaded == tuple(trunk)
    for name in trunk:
        own, theirs = encoder.state_dict()[name], state[name.removeprefix("trunk.network.")]
        assert torch.equal(own, theirs)
    assert all(name.startswith("projection.") for name in report.new)
    assert {*report.unused, *(n.removeprefix("trunk.network.") for n in trunk)} == state.keys()
    assert str(report).endswith(
        "(projection.* (4 tensors): new; features.* (36 tensors): left unused; "
        "classifier.* (2 tensors): left unused)"
    )


def test_the_whole_network_leaves_nothing_unused(published: Path) -> None:
    report = load_into(backbone(RGB, "squeezenet1_1:logits", projection="none"), published)
    assert (report.new, report.unused) == ((), ())


def test_filters_for_rgb_are_inflated_and_reported(published: Path) -> None:
    encoder = backbone((4, 40, 40), stacking="inflated")
    report = load_into(encoder, published)
    first = "trunk.network.features.0.weight"
    assert report.adapted == {first: "filters summed over RGB and shared among 4 frames"}
    rgb = torch.load(published, weights_only=True)["features.0.weight"]
    expected = rgb.sum(dim=1, keepdim=True).expand(-1, 4, -1, -1) / 4
    torch.testing.assert_close(encoder.get_parameter(first).data, expected)


@pytest.mark.parametrize("channels, said", [(1, "1 channel, not 3"), (4, "4 channels, not 3")])
def test_weights_for_stacks_of_grey_frames_need_an_inflated_network(
    channels: int, said: str, published: Path
) -> None:
    state = torch.load(published, weights_only=True)
    state["features.0.weight"] = torch.zeros(64, channels, 3, 3)
    torch.save(state, published)
    message = refusal(published, backbone((channels, 40, 40)))
    assert f"images of {said}:" in message
    assert message.endswith(f"--encoder-options stacking inflated --frame-stack {channels}.")
    load_into(backbone((channels, 40, 40), stacking="inflated"), published)


def test_any_other_classifier_is_left_unused(published: Path) -> None:
    encoder = backbone((4, 40, 40))
    state = torch.load(published, weights_only=True)
    state = {name: t for name, t in state.items() if not name.startswith("classifier")}
    others = ("classifier.0.weight", "classifier.3.bias", "head.weight", "temperature")
    torch.save(state | dict.fromkeys(others, torch.zeros(3)), published)
    assert load_into(encoder, published).unused[-4:] == others
    # A part of the trunk's own that it has no place for is another network.
    torch.save(state | {"features.99.weight": torch.zeros(3)}, published)
    assert "left over: features.99.weight." in refusal(published, encoder)


def test_another_network_is_refused_with_the_nearest(tmp_path: Path) -> None:
    path = tmp_path / "some.safetensors"
    save_file(models.squeezenet1_0(weights=None).state_dict(), path)
    message = refusal(path, backbone(RGB))
    assert message.endswith('It fits encoder "squeezenet1_0".')
    assert refusal(path).endswith('It fits encoder "squeezenet1_0".')
    save_file(create_encoder("lenet", RGB).state_dict(), path)
    assert refusal(path, backbone(RGB)).endswith('It fits encoder "lenet".')


def test_a_missing_tensor_of_the_trunk_is_named(published: Path) -> None:
    state = torch.load(published, weights_only=True)
    del state["features.0.bias"]
    torch.save(state, published)
    assert "missing: trunk.network.features.0.bias." in refusal(published, backbone(RGB))


def test_weights_for_rgb_do_not_fit_one_channel(tmp_path: Path) -> None:
    save_encoder(create_encoder("nature", RGB), tmp_path / "e.safetensors")
    message = refusal(tmp_path / "e.safetensors", create_encoder("nature", (1, 40, 40)))
    assert "trunk.conv1.weight (32, 3, 8, 8) instead of (32, 1, 8, 8)" in message
    assert message.endswith(
        "They were made for images of 3 channels, not 1: train_agent.py makes such observations "
        "with --obs rgb --frame-stack 1."
    )
    save_encoder(create_encoder("nature", (2, 40, 40)), tmp_path / "e.safetensors")
    assert refusal(tmp_path / "e.safetensors").endswith("with --frame-stack 2.")


def test_a_trunk_goes_to_other_options_and_nodes(tmp_path: Path) -> None:
    deep = backbone(RGB, "squeezenet1_1:features.7", pooling="mean", projection="none")
    path = tmp_path / "e.safetensors"
    save_encoder(deep, path)
    encoder = backbone((12, 40, 40))
    report = load_into(encoder, path)
    assert all(
        n in deep.state_dict() and torch.equal(deep.state_dict()[n], v)
        for n, v in encoder.state_dict().items()
        if n.startswith("trunk.")
    )
    assert all(name.startswith("projection.") for name in report.new)
    assert {name.split(".")[3] for name in report.unused} == {"6", "7"}
    # What comes after the trunk is another encoder's, even where its shapes fit.
    save_encoder(backbone((12, 40, 40), projection_seed=1), path)
    report = load_into(backbone((12, 40, 40)), path)
    assert sorted(report.unused) == sorted(report.new)
    assert all(name.startswith("projection.") for name in report.unused)


def test_the_same_encoder_comes_back_with_its_projection(tmp_path: Path) -> None:
    for options in ({}, {"projection": "random", "features_dim": 8}, {"stacking": "inflated"}):
        encoder = backbone((4, 40, 40), **options)
        save_encoder(encoder, tmp_path / "e.safetensors")
        loaded = load_encoder(tmp_path / "e.safetensors")
        assert loaded.spec() == encoder.spec()
        assert equal(loaded, encoder)


def test_imagenet_weights_belong_to_published_networks() -> None:
    with pytest.raises(UserError, match='no ImageNet weights for encoder "nature"'):
        load_into(create_encoder("nature", SHAPE), "imagenet")


def test_without_an_internet_connection_the_line_says_how_to_pass_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def no_network(*args: Any, **kwargs: Any) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", no_network)
    monkeypatch.setattr("torch.hub.urlopen", no_network)
    with pytest.raises(UserError, match=r"no route to host.*squeezenet1_1.*place of imag") as e:
        load_into(backbone(RGB), "imagenet")
    assert "\n" not in str(e.value)


def test_imagenet_weights_are_torchvisions_download(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if downloaded before; torchvision checks hashes of what it downloads only.
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    url = models.SqueezeNet1_1_Weights.DEFAULT.url
    published.rename(cache / url.split("/")[-1])
    report = load_into(backbone(RGB), "imagenet")
    assert report.source == f'the ImageNet weights of "{BACKBONE}"'
    assert len(report.loaded) == 14
