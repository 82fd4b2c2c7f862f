"""Every encoder: its published figures, and the properties of all encoders."""

from __future__ import annotations

import copy
import json
import pickle

import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import NatureCNN
from support.picture_files import images
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

from envs.errors import UserError
from rlcnn.encoders import Encoder, Preprocessing, create_encoder, encoder_options, list_encoders
from rlcnn.encoders.lenet import C3_TABLE, SparseC3

ATARI = (4, 84, 84)
VARIANTS = [
    ("nature", {}),
    ("lenet", {}),
    ("lenet", {"variant": "lecun1998"}),
    ("lenet", {"variant": "course"}),
    ("impala", {}),
    ("impala", {"width": 0.5, "pooling": "mean"}),
    ("cifar_resnet", {"depth": 8}),
    ("cifar_resnet", {"depth": 8, "shortcut": "exclusive_gate", "pooling": "2x2"}),
    ("resnet9", {"width": 0.25}),
    # Dropout would make every pass another one.
    ("alexnet_2012", {"features_dim": 64, "dropout": 0}),
    ("zfnet", {"features_dim": 64, "dropout": 0}),
]
every_variant = pytest.mark.parametrize("name, options", VARIANTS)
BACKBONES = [
    ("squeezenet1_1:features.4", {"features_dim": 32}),
    ("resnet18:layer1", {"pooling": "4x4", "projection": "random", "features_dim": 32}),
    ("squeezenet1_1:features.4", {"stacking": "inflated", "pooling": "mean"}),
]
# Of each family: to compile one takes nearly a second.
FEW_ENCODERS = [VARIANTS[4], BACKBONES[0]]
every_encoder = pytest.mark.parametrize("name, options", VARIANTS + BACKBONES)


def small(name: str) -> tuple[int, int, int]:
    """The shape of small observations for an encoder."""
    side = {"alexnet_2012": 67, "zfnet": 47}.get(name, 40)
    return (4, side, side)


def node_shapes(encoder: Encoder, nodes: list[str]) -> dict[str, tuple[int, ...]]:
    """Shapes of named nodes for one observation, as a user would cut the encoder there."""
    extractor = create_feature_extractor(
        encoder, nodes, tracer_kwargs={"leaf_modules": [Preprocessing]}
    )
    outputs = extractor(images(1, *encoder.observation_shape))
    return {node: tuple(output.shape[1:]) for node, output in outputs.items()}


def with_classes(encoder: Encoder, classes: int = 10) -> int:
    """Parameters of an encoder with a linear classifier on its features."""
    return encoder.num_parameters() + (encoder.features_dim + 1) * classes


def test_nature_has_the_published_size() -> None:
    encoder = create_encoder("nature", ATARI)
    assert encoder.num_parameters() == 1_684_128
    assert encoder.macs() == 9_342_976
    assert node_shapes(encoder, ["trunk.relu1", "trunk.relu2", "trunk.relu3"]) == {
        "trunk.relu1": (32, 20, 20),
        "trunk.relu2": (64, 9, 9),
        "trunk.relu3": (64, 7, 7),
    }


def test_lenet_has_the_published_shapes_and_size() -> None:
    encoder = create_encoder("lenet", (1, 32, 32))
    assert sum(p.numel() for p in encoder.get_submodule("trunk.c1").parameters()) == 156
    assert with_classes(encoder) == 61_706
    layers = ["trunk.c1", "trunk.s2", "trunk.c3", "trunk.s4", "projection.c5", "projection.f6"]
    shapes = [(6, 28, 28), (6, 14, 14), (16, 10, 10), (16, 5, 5), (120,), (84,)]
    assert node_shapes(encoder, layers) == dict(zip(layers, shapes, strict=True))
    assert create_encoder("lenet", ATARI).macs() == 7_582_560


def test_lecun1998_counts_each_layer_as_the_paper_does() -> None:
    encoder = create_encoder("lenet", (1, 32, 32), variant="lecun1998")
    layers = ["trunk.c1", "trunk.s2", "trunk.c3", "trunk.s4", "projection.c5", "projection.f6"]
    counts = [sum(p.numel() for p in encoder.get_submodule(n).parameters()) for n in layers]
    assert counts == [156, 12, 1516, 32, 48_120, 10_164]
    assert encoder.num_parameters() == 60_000
    # The paper's connections of C1, C3, C5 and F6, less their biases; C3's are 60 of 96.
    expected = 25 * 28 * 28 * 6 + 60 * 25 * 10 * 10 + 400 * 120 + 120 * 84
    assert encoder.macs() == expected


def test_course_lenet_has_the_known_size() -> None:
    encoder = create_encoder("lenet", (1, 28, 28), variant="course")
    assert node_shapes(encoder, ["trunk.c1"]) == {"trunk.c1": (6, 24, 24)}
    assert with_classes(encoder) == 44_426


def test_impala_has_the_published_size() -> None:
    encoder = create_encoder("impala", ATARI)
    assert sum(isinstance(module, nn.Conv2d) for module in encoder.modules()) == 15
    assert encoder.num_parameters() == 1_089_232
    assert encoder.macs() == 54_222_848
    sections = [f"trunk.section{index}.block2.add" for index in (1, 2, 3)]
    shapes = [(16, 42, 42), (32, 21, 21), (32, 11, 11)]
    assert node_shapes(encoder, sections) == dict(zip(sections, shapes, strict=True))
    assert encoder.features_dim == 256


def test_width_and_pooling_of_impala() -> None:
    wide = create_encoder("impala", ATARI, width=2)
    convolutions = [m for m in wide.modules() if isinstance(m, nn.Conv2d)]
    assert [c.out_channels for c in convolutions] == [32] * 5 + [64] * 10
    pooled = create_encoder("impala", ATARI, pooling="mean")
    assert pooled.get_submodule("projection.linear").weight.shape == (256, 32)
    # Mean pooling makes the parameters independent of the image's size.
    assert (
        pooled.num_parameters()
        == create_encoder("impala", (4, 96, 120), pooling="mean").num_parameters()
    )


def test_sparse_c3_sees_exactly_the_maps_of_the_table() -> None:
    layer = SparseC3()
    image = torch.randn(1, 6, 5, 5, requires_grad=True)
    for index, sources in enumerate(C3_TABLE):
        (gradient,) = torch.autograd.grad(layer(image)[0, index].sum(), image)
        seen = gradient[0].flatten(1).abs().sum(1).nonzero().flatten().tolist()
        assert seen == list(sources)


def test_nature_equals_stable_baselines3s_with_the_same_weights() -> None:
    reference = NatureCNN(spaces.Box(0, 255, ATARI, "uint8"))
    encoder = create_encoder("nature", ATARI)
    for own, theirs in zip(encoder.parameters(), reference.parameters(), strict=True):
        own.data.copy_(theirs)
    observations = images(8, *ATARI)
    expected = reference(observations.float() / 255.0)
    torch.testing.assert_close(encoder(observations), expected, rtol=1e-5, atol=1e-6)


def test_the_variants_under_test_cover_the_registry() -> None:
    assert {name for name, _ in VARIANTS} == set(list_encoders())


@pytest.mark.parametrize(
    "shape",
    [
        *(ATARI, (3, 40, 72)),
        *(pytest.param(shape, marks=pytest.mark.slow) for shape in [(4, 64, 64), (12, 96, 96)]),
    ],
)
@every_encoder
def test_forward_and_backward(
    name: str, options: dict[str, object], shape: tuple[int, int, int]
) -> None:
    if min(shape[1:]) < small(name)[1]:
        pytest.skip("too small an image for this encoder")
    encoder = create_encoder(name, shape, **options)
    features = encoder(images(2, *shape))
    assert features.shape == (2, encoder.features_dim)
    assert features.dtype == torch.float32
    features.sum().backward()
    for parameter_name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name


@every_variant
def test_features_start_at_a_length_that_heads_can_take(
    name: str, options: dict[str, object]
) -> None:
    torch.manual_seed(0)
    lengths = create_encoder(name, ATARI, **options)(images(8, *ATARI)).norm(dim=1)
    assert 0.5 < lengths.mean() < 20


@every_variant
def test_least_size_is_the_least_that_works(name: str, options: dict[str, object]) -> None:
    least = create_encoder(name, ATARI, **options).least_size
    encoder = create_encoder(name, (1, least, least), **options)
    assert encoder(images(1, 1, least, least)).shape == (1, encoder.features_dim)
    with pytest.raises(UserError, match=f"{name}.*at least {least}x{least}"):
        create_encoder(name, (1, least, least - 1), **options)


@every_encoder
def test_bf16_autocast_is_close_to_fp32(name: str, options: dict[str, object]) -> None:
    torch.manual_seed(0)
    encoder = create_encoder(name, ATARI, **options)
    observations = images(4, *ATARI)
    exact = encoder(observations)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = encoder(observations)
    assert rounded.dtype == torch.bfloat16
    assert (rounded - exact).norm() < 0.02 * exact.norm()
    rounded.float().sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in encoder.parameters())


@pytest.mark.parametrize(
    "name, options",
    [
        pytest.param(*case, marks=() if case in FEW_ENCODERS else pytest.mark.slow)
        for case in VARIANTS + BACKBONES
    ],
)
def test_compiles_into_one_graph(name: str, options: dict[str, object]) -> None:
    torch.compiler.reset()  # the limit on recompilations counts all instances of the class
    encoder = create_encoder(name, small(name), **options)
    compiled = torch.compile(encoder, backend="eager", fullgraph=True)
    observations = images(2, *small(name))
    assert torch.equal(compiled(observations), encoder(observations))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(compiled(observations), encoder(observations))


@every_encoder
def test_copies_and_pickles_are_equal_and_apart(name: str, options: dict[str, object]) -> None:
    encoder = create_encoder(name, small(name), **options)
    observations = images(2, *small(name))
    for twin in (copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder))):
        assert torch.equal(twin(observations), encoder(observations))
        assert twin.spec() == encoder.spec()
        next(twin.parameters()).data.zero_()
        assert not torch.equal(twin(observations), encoder(observations))


@every_encoder
def test_spec_rebuilds_the_encoder(name: str, options: dict[str, object]) -> None:
    encoder = create_encoder(name, small(name), **options)
    spec = json.loads(json.dumps(encoder.spec()))
    twin = create_encoder(spec["name"], spec["observation_shape"], **spec["options"])
    assert twin.spec() == encoder.spec()
    chosen = {"frame_channels": 1} if name.count(":") else {}
    # Left out where unused, as in files of versions that did not have them.
    later = [("norm", "none"), ("spectral_norm", "none"), ("input_norm", "none")]
    later.append(("activation", "relu"))
    used = {o: v for o, v in encoder_options(name).items() if (o, v) not in later}
    assert spec["options"] == used | chosen | options
    assert [(n, p.shape) for n, p in twin.named_parameters()] == [
        (n, p.shape) for n, p in encoder.named_parameters()
    ]


@pytest.mark.parametrize("channels", [pytest.param(1, marks=pytest.mark.slow), 4])
@every_encoder
def test_it_does_not_matter_how_observations_lie_in_memory(
    name: str, options: dict[str, object], channels: int
) -> None:
    shape = (channels, *small(name)[1:])
    encoder = create_encoder(name, shape, **options).eval()
    observations = images(2, *shape)
    layouts = [
        observations.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2),
        observations.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2),
        observations[:1].expand(2, -1, -1, -1),
        images(2, channels, shape[1], 2 * shape[2])[..., 1::2],
        observations[1:],
        observations[:0],
    ]
    with torch.no_grad():
        for strided in layouts:
            before = strided.clone()
            features = encoder(strided)
            assert features.shape == (len(strided), encoder.features_dim)
            torch.testing.assert_close(features, encoder(strided.contiguous()))
            assert torch.equal(strided, before)


def test_counting_macs_leaves_the_encoder_alone() -> None:
    encoder = create_encoder("lenet", (1, 32, 32))
    before = copy.deepcopy(encoder.state_dict())
    generator = torch.get_rng_state()
    encoder.macs()
    assert encoder.training
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())
    assert all(p.device.type == "cpu" for p in encoder.parameters())
    assert not any(m._forward_hooks for m in encoder.modules())
