"""Networks of torchvision and timm as encoders."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision import models

from envs.errors import UserError
from rlcnn.encoders import FrameEncoder, create_encoder, list_architectures, why_unknown
from rlcnn.encoders.architectures import current_name, find_architecture, published_sizes
from rlcnn.encoders.backbones import block_nodes
from rlcnn.encoders.base import output_shape
from rlcnn.weights.load import load_into
from rlcnn.weights.nearest import without_values

RGB = (3, 64, 64)


def images(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def slow(*case: object) -> Any:
    """A case whose network takes a second or more to build."""
    return pytest.param(*case, marks=pytest.mark.slow)


def built(name: str, shape: tuple[int, int, int], **options: Any) -> FrameEncoder:
    """An encoder without values, for tests of its shapes."""
    with without_values():
        encoder = create_encoder(name, shape, **{"projection": "none", **options})
    assert isinstance(encoder, FrameEncoder)
    return encoder


def with_weights_of(encoder: FrameEncoder, network: torch.nn.Module) -> FrameEncoder:
    """The encoder with another network's parameters."""
    state = {f"trunk.network.{name}": value for name, value in network.state_dict().items()}
    own = encoder.state_dict()
    encoder.load_state_dict({name: state.get(name, own[name]) for name in own})
    return encoder.eval()


# Against torchvision itself.


@pytest.mark.parametrize("name", ["squeezenet1_0", "resnet18"])
def test_logits_are_torchvisions_own_on_its_own_preprocessing(name: str) -> None:
    torch.manual_seed(0)
    network = models.get_model(name, weights=None).eval()
    encoder = create_encoder(f"{name}:logits", RGB, projection="none")
    assert isinstance(encoder, FrameEncoder)
    with_weights_of(encoder, network)
    # Neither resized nor cropped: what is left of the weights' transforms is the normalisation.
    transforms = models.get_model_weights(name).DEFAULT.transforms(crop_size=64, resize_size=64)
    observations = images(2, *RGB)
    with torch.no_grad():
        torch.testing.assert_close(
            encoder(observations), network(transforms(observations)), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("name", ["googlenet", slow("inception_v3")])
def test_tensorflows_scaling_needs_no_input_transform(name: str) -> None:
    torch.manual_seed(0)
    side = 80
    network = models.get_model(
        name, weights=None, transform_input=True, aux_logits=False, init_weights=False
    ).eval()
    encoder = create_encoder(f"{name}:logits", (3, side, side), projection="none")
    assert isinstance(encoder, FrameEncoder)
    with_weights_of(encoder, network)
    transforms = models.get_model_weights(name).DEFAULT.transforms(crop_size=side, resize_size=side)
    observations = images(1, 3, side, side)
    with torch.no_grad():
        torch.testing.assert_close(
            encoder(observations), network(transforms(observations)), rtol=1e-3, atol=1e-4
        )


def test_a_node_is_what_torchvision_computes_there() -> None:
    network = models.resnet18(weights=None).eval()
    encoder = create_encoder("resnet18:layer2", RGB, projection="none")
    assert isinstance(encoder, FrameEncoder)
    with_weights_of(encoder, network)
    kept: list[torch.Tensor] = []
    network.layer2.register_forward_hook(lambda module, args, output: kept.append(output))
    observations = images(2, *RGB)
    with torch.no_grad():
        network(encoder.preprocessing(observations))
        torch.testing.assert_close(encoder(observations), kept[0].flatten(1))
    assert not any("layer3" in key for key in encoder.state_dict())


# Published figures.


@pytest.mark.parametrize(
    "name, parameters",
    [
        ("alexnet", 61_100_840),
        slow("vgg16", 138_357_544),
        slow("vgg19", 143_667_240),
        slow("googlenet", 6_624_904),
        slow("inception_v3", 23_834_568),
        ("resnet18", 11_689_512),
        slow("resnet50", 25_557_032),
        slow("resnet101", 44_549_160),
        slow("resnet152", 60_192_808),
        slow("densenet121", 7_978_856),
    ],
)
def test_whole_networks_have_the_published_size(name: str, parameters: int) -> None:
    encoder = built(f"{name}:logits", (3, 224, 224))
    assert encoder.num_parameters() == parameters
    assert encoder.features_dim == 1000


@pytest.mark.parametrize(
    "name, side, macs",
    [
        ("squeezenet1_1:features", 84, 37),
        slow("squeezenet1_0:features", 84, 86),
        ("resnet18:layer2", 84, 145),
        slow("resnet18:logits", 84, 297),
        ("resnet18:logits", 224, 1_814),
        slow("resnet50:logits", 224, 4_089),
    ],
)
def test_multiply_accumulates_of_a_frame(name: str, side: int, macs: int) -> None:
    assert round(built(name, (3, side, side)).macs() / 1e6) == macs


@pytest.mark.parametrize("name", ["vit_b_16", slow("swin_t"), slow("mobilenet_v3_small")])
def test_multiply_accumulates_of_attention_are_those_published(name: str) -> None:
    published = models.get_model_weights(name).DEFAULT.meta["_ops"]
    network = built(f"{name}:logits", (3, 224, 224))
    assert round(network.train().macs() / 1e9, 3) == published
    assert network.eval().macs() == network.train().macs()


def test_multiply_accumulates_count_every_frame_and_the_projection() -> None:
    one = built("resnet18:layer2", (3, 64, 64)).macs()
    assert built("resnet18:layer2", (12, 64, 64)).macs() == 4 * one
    learned = built("resnet18:layer2", (12, 64, 64), projection="learned", pooling="mean")
    assert learned.macs() == 4 * one + 4 * 128 * 256
    fixed = built(
        "resnet18:layer2", (12, 64, 64), projection="random", pooling="mean", features_dim=64
    )
    assert fixed.macs() == 4 * one + 4 * 128 * 64


# Nodes.


def cut_at_an_eighth(name: str) -> bool:
    encoder = built(name, (3, 224, 224))
    _, height, width = output_shape(encoder.trunk, (3, 224, 224))
    return height == width and 25 <= height <= 28


@pytest.mark.parametrize(
    "name",
    [
        *("alexnet", "squeezenet1_0"),
        *(slow("vgg16_bn"), slow("mobilenet_v3_large"), slow("shufflenet_v2_x0_5")),
    ],
)
def test_default_nodes_are_maps_at_an_eighth_of_the_side(name: str) -> None:
    assert cut_at_an_eighth(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", list_architectures())
def test_every_network_is_cut_at_its_default_node(name: str) -> None:
    if name.startswith(("vit", "swin")):
        encoder = built(name, (3, 64, 64), resize=224)
        assert encoder.features_dim > 0
    else:
        assert cut_at_an_eighth(name)


@pytest.mark.parametrize("name", ["resnet18", slow("efficientnet_b0"), slow("densenet121")])
def test_a_change_of_mode_changes_no_code(name: str) -> None:
    encoder = built(name, (3, 64, 64))
    network = encoder.get_submodule("trunk.network")
    before = type(network).forward
    encoder.eval()
    encoder.train()
    assert type(network).forward is before
    assert all(module.training for module in encoder.modules())


def test_the_default_node_is_part_of_the_name() -> None:
    encoder = built("resnet18", (12, 64, 64))
    assert encoder.name == encoder.spec()["name"] == "resnet18:layer2"


@pytest.mark.parametrize(
    "name, features",
    [
        *(("resnet18", 512), ("squeezenet1_1", 512 * 3 * 3)),
        *(slow("vgg11", 4096), slow("densenet121", 1024)),
    ],
)
def test_penultimate_is_what_the_classifier_sees(name: str, features: int) -> None:
    assert built(f"{name}:penultimate", (3, 64, 64)).features_dim == features


def test_transformers_are_encoders_at_their_own_size() -> None:
    encoder = built("vit_b_32", RGB, resize=224, pooling="mean")
    assert encoder.features_dim == 768
    with pytest.raises(UserError, match=r'64x64 pixels do not go through .* option "resize"'):
        built("vit_b_32", RGB)


# Refusals.


@pytest.mark.parametrize(
    "name, message",
    [
        ("resnet18:layer9", 'network "resnet18" has no node "layer9". Did you mean "layer[1-4]"'),
        ("resnet18:(", r'network "resnet18" has no node "\("'),
        (
            "resnet19:layer2",
            r'unknown encoder "resnet19:layer2".*Did you mean "resnet1\d\d?:layer2',
        ),
        ("impala:trunk", 'only networks of torchvision and timm are cut at a node, not "impala"'),
    ],
)
def test_bad_names_give_one_line(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as refusal:
        create_encoder(name, RGB)
    assert "\n" not in str(refusal.value)


def test_images_too_small_for_a_node_give_only_one_line(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(UserError) as refusal:
        create_encoder("squeezenet1_1:logits", (3, 8, 8))
    assert str(refusal.value) == (
        '8x8 pixels do not go through encoder "squeezenet1_1:logits": its option "resize" gives '
        "them a size that does, --encoder-options resize 32."
    )
    # A traced network prints pages about it.
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("given", [84, slow(256)])
def test_a_network_for_images_of_one_size_names_it(given: int) -> None:
    with pytest.raises(UserError, match=r"go through .*--encoder-options resize 224\.$"):
        built("vit_b_32", (1, given, given))


def test_names_are_checked_without_building_networks() -> None:
    assert why_unknown("nature") is None
    assert why_unknown("resnet18") is None
    assert why_unknown("resnet18:anything") is None
    assert "Did you mean" in (why_unknown("resnet") or "")


def test_published_sizes_are_of_all_networks() -> None:
    sizes = published_sizes()
    assert sizes.keys() == set(list_architectures())
    assert sizes["resnet18"] == 11_689_512


def test_old_names_of_densenets_tensors() -> None:
    old = "features.denseblock3.denselayer10.norm.2.weight"
    assert current_name(old) == "features.denseblock3.denselayer10.norm2.weight"
    with torch.device("meta"):
        today = models.densenet121(weights=None).state_dict()
    assert current_name(old) in today
    assert all(current_name(name) == name for name in today)


@pytest.mark.slow
def test_nothing_of_torchvision_is_imported_before_it_is_needed() -> None:
    code = (
        "import sys, torch; before = set(sys.modules); import rlcnn.encoders as e;"
        "e.create_encoder('nature', (4, 84, 84));"
        "print(sorted({m.split('.')[0] for m in set(sys.modules) - before}"
        " & {'torchvision', 'timm'}))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("name", "first", "last", "count"),
    [
        ("resnet18", "maxpool", "layer4", 5),
        ("squeezenet1_1", "features.2", "features.12", 9),
        slow("maxvit_t", "blocks.0", "blocks.3", 4),
        slow("vit_b_16", "encoder.layers.encoder_layer_0", "encoder.layers.encoder_layer_11", 12),
        ("timm:convnext_atto", "stages.0", "stages.3", 4),
        ("timm:vit_tiny_patch16_224", "blocks.0", "blocks.11", 12),
    ],
)
def test_the_ends_of_blocks_are_nodes(name: str, first: str, last: str, count: int) -> None:
    if name.startswith("timm:"):
        pytest.importorskip("timm", reason="timm is an extra")
    with without_values():
        nodes = block_nodes(name)
    assert (nodes[0], nodes[-1], len(nodes)) == (first, last, count)


# timm.


def test_a_network_of_timm_is_timms_own() -> None:
    timm = pytest.importorskip("timm", reason="timm is an extra")
    torch.manual_seed(0)
    network = timm.create_model("resnet18", pretrained=False).eval()
    encoder = create_encoder("timm:resnet18:layer2", RGB, projection="none")
    assert isinstance(encoder, FrameEncoder)
    with_weights_of(encoder, network)
    observations = images(2, *RGB)
    with torch.no_grad():
        *_, layer2 = network.forward_intermediates(
            encoder.preprocessing(observations), indices=[2], intermediates_only=True
        )
        torch.testing.assert_close(encoder(observations), layer2.flatten(1), rtol=1e-4, atol=1e-5)


def test_timms_default_node_is_at_an_eighth() -> None:
    pytest.importorskip("timm", reason="timm is an extra")
    encoder = built("timm:resnet18", (3, 64, 64))
    assert encoder.name == "timm:resnet18:layer2"
    assert output_shape(encoder.trunk, (3, 64, 64)) == (128, 8, 8)
    with pytest.raises(UserError, match='timm has no model "resnet1888"'):
        create_encoder("timm:resnet1888", RGB)


DINO = "timm:vit_small_patch14_dinov2.lvd142m"
FRAMES = (8, 42, 42)


@pytest.fixture(scope="module")
def dino() -> Any:
    """A small transformer of timm with a class token, for 518 pixels, and its images."""
    timm = pytest.importorskip("timm", reason="timm is an extra")
    torch.manual_seed(0)
    network = timm.create_model(DINO.removeprefix("timm:"), dynamic_img_size=True).eval()
    # New transformers add nearly nothing in their blocks, and a new class token is nearly zero.
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.05)
    return network


@pytest.mark.parametrize("pooling", ["cls", "patches", "mean", "flatten"])
def test_a_frozen_transformers_stored_features_are_timms_own(dino: Any, pooling: str) -> None:
    encoder = create_encoder(f"{DINO}:blocks.1", FRAMES, frame_channels=1, pooling=pooling)
    assert isinstance(encoder, FrameEncoder)
    with_weights_of(encoder, dino)
    frames = images(3, 1, *FRAMES[1:])
    mean, std = (torch.tensor(dino.pretrained_cfg[n]).view(3, 1, 1) for n in ("mean", "std"))
    with torch.no_grad():
        [(patches, prefix)] = dino.forward_intermediates(
            (frames.expand(-1, 3, -1, -1) / 255 - mean) / std,
            indices=[1],
            output_fmt="NLC",
            return_prefix_tokens=True,
            intermediates_only=True,
        )
        stored = encoder.encode_for_storage(frames)
    tokens = torch.cat([prefix, patches], dim=1)
    assert patches.shape == (3, 9, 384)
    expected = {
        "cls": prefix[:, 0],
        "patches": patches.mean(dim=1),
        "mean": tokens.mean(dim=1),
        "flatten": tokens.flatten(1),
    }[pooling]
    torch.testing.assert_close(stored, expected, rtol=1e-4, atol=1e-5)
    assert encoder.storage_layout(depth=8) == (8, expected.shape[1])


def test_the_weights_of_a_transformer_fit_every_size(dino: Any, tmp_path: Path) -> None:
    torch.save(dino.state_dict(), tmp_path / "dino.pth")
    encoder = create_encoder(f"{DINO}:blocks.0", (3, 56, 42), pooling="cls")
    report = load_into(encoder, tmp_path / "dino.pth")
    assert not report.adapted
    assert not [name for name in report.new if name.startswith("trunk.")]
    assert "trunk.network.pos_embed" in report.loaded


@pytest.mark.parametrize(
    ("name", "shape", "options", "tokens"),
    [
        (f"{DINO}:blocks.5", (4, 84, 84), {"pooling": "cls"}, (37, 384)),
        ("timm:vit_base_patch16_siglip_224:blocks.0", (3, 96, 64), {}, (24, 768)),
        ("timm:vit_small_patch16_dinov3.lvd1689m:blocks.0", (3, 96, 96), {}, (41, 384)),
        ("timm:convnext_atto:stages.2", (3, 84, 84), {"pooling": "mean"}, (160, 5, 5)),
        ("timm:mobilenetv4_conv_small", (3, 84, 84), {"pooling": "4x4"}, (64, 11, 11)),
    ],
)
def test_timms_foundation_models_take_frames_of_games(
    name: str, shape: tuple[int, int, int], options: dict[str, Any], tokens: tuple[int, ...]
) -> None:
    pytest.importorskip("timm", reason="timm is an extra")
    encoder = built(name, shape, **options)
    assert output_shape(encoder.trunk, encoder.preprocessing.output_shape) == tokens


@pytest.mark.parametrize(
    ("name", "shape", "options", "said"),
    [
        (DINO, FRAMES, {}, "no default node: name one, timm:NAME:NODE, such as blocks.6"),
        (f"{DINO}:blocks.12", FRAMES, {}, 'has no node "blocks.12". Did you mean "blocks'),
        (f"{DINO}:blocks.1", (4, 80, 80), {}, "80x80 pixels do not go through .* resize 84"),
        (f"{DINO}:blocks.1", FRAMES, {"pooling": "2x2"}, "needs feature maps"),
        ("timm:convnext_atto:blocks.2", FRAMES, {}, 'has no node "blocks.2"'),
        (
            "timm:vit_base_patch16_siglip_224:blocks.0",
            (3, 32, 32),
            {"pooling": "cls"},
            'needs a class token, which this node does not have: expected "patches"',
        ),
    ],
)
def test_what_does_not_fit_a_network_of_timm_is_one_line(
    name: str, shape: tuple[int, int, int], options: dict[str, Any], said: str
) -> None:
    pytest.importorskip("timm", reason="timm is an extra")
    with pytest.raises(UserError, match=said) as error:
        built(name, shape, **options)
    assert "\n" not in str(error.value)


def test_timm_is_asked_for_by_name_where_it_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"needs timm, which is not installed: pip install") as e:
        create_encoder("timm:resnet18", RGB)
    assert "\n" not in str(e.value)
    assert find_architecture("resnet18") is not None


@pytest.mark.slow
def test_a_size_that_does_not_fit_gives_only_one_line(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(UserError, match="64x64 pixels do not go through"):
        create_encoder("maxvit_t", (3, 64, 64))
    assert capfd.readouterr().err == ""
