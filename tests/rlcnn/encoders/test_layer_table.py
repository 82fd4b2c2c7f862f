"""The table of an encoder's layers: figures by hand, and sums equal to the encoder's own."""

from __future__ import annotations

import pytest
import torch

from envs.errors import UserError
from rlcnn.encoders import create_encoder, list_encoders
from rlcnn.encoders.layer_table import Layer, describe_encoder, layer_table


def test_lenets_layers_are_those_by_hand() -> None:
    encoder = create_encoder("lenet", (1, 32, 32))
    assert layer_table(encoder) == [
        # 6 filters of 5x5 weights and a bias, at 28x28 positions.
        Layer("trunk.c1", "Conv2d 5x5", (6, 28, 28), 156, 28 * 28 * 6 * 25),
        Layer("trunk.s2", "AvgPool2d 2x2", (6, 14, 14), 0, 0),
        Layer("trunk.c3", "Conv2d 5x5", (16, 10, 10), 16 * (6 * 25 + 1), 100 * 16 * 6 * 25),
        Layer("trunk.s4", "AvgPool2d 2x2", (16, 5, 5), 0, 0),
        Layer("pool", "Flatten", (400,), 0, 0),
        Layer("projection.c5", "Linear", (120,), 401 * 120, 400 * 120),
        Layer("projection.f6", "Linear", (84,), 121 * 84, 120 * 84),
    ]


def test_alexnets_first_layer_is_the_courses() -> None:
    encoder = create_encoder("alexnet:logits", (3, 224, 224), projection="none")
    first, pool = layer_table(encoder)[:2]
    # The name of a node, by which the network is cut.
    assert (first.name, first.kind) == ("features.0", "Conv2d 11x11, stride 4, padding 2")
    assert first.output_shape == (64, 55, 55)
    assert first.parameters == (3 * 11 * 11 + 1) * 64
    assert (pool.kind, pool.output_shape) == ("MaxPool2d 3x3, stride 2", (64, 27, 27))


@pytest.mark.parametrize(
    "name, shape, options",
    [
        *((name, (3, 72, 72), {}) for name in list_encoders()),
        ("lenet", (1, 32, 32), {"variant": "lecun1998"}),
        ("cifar_resnet", (3, 32, 32), {"shortcut": "exclusive_gate"}),
        # Each of four frames alone, with a learned projection.
        ("resnet18:layer2", (12, 64, 64), {}),
        # Concatenations, and attention that computes its parts itself.
        ("googlenet:logits", (3, 64, 64), {"projection": "none"}),
        ("vit_b_32:logits", (3, 224, 224), {"projection": "none"}),
    ],
)
def test_layers_add_up_to_the_encoders_own_figures(
    name: str, shape: tuple[int, int, int], options: dict[str, object]
) -> None:
    with torch.device("meta"):
        encoder = create_encoder(name, shape, **options)
    layers = layer_table(encoder)
    assert sum(layer.parameters for layer in layers) == encoder.num_parameters()
    assert sum(layer.macs for layer in layers) == encoder.macs()


def test_nothing_is_computed_and_nothing_stays_behind() -> None:
    encoder = create_encoder("cifar_resnet", (3, 32, 32), depth=8)
    before = {n: t.clone() for n, t in encoder.state_dict().items()}
    layer_table(encoder)
    # Among them BatchNorm's running statistics.
    assert all(torch.equal(before[n], t) for n, t in encoder.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in encoder.modules())


def test_the_description_is_a_table_with_totals() -> None:
    lines = describe_encoder("lenet", {}, (1, 32, 32), classes=10)
    assert len({len(line) for line in lines}) == 1
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    assert rows[0] == ["layer", "kind", "output", "parameters", "MACs"]
    assert rows[2][2] == "1x32x32"
    assert rows[3] == ["trunk.c1", "Conv2d 5x5", "6x28x28", "156", "117,600"]
    assert rows[-2] == ["head", "Linear", "10", "850", "840"]
    assert rows[-1][0::3] == ["total", "61,706"]


@pytest.mark.parametrize(
    "name, shape",
    [("nature", "4x84x84"), ("resnet18", "3x224x224"), ("inception_v3", "3x299x299")],
)
def test_a_networks_own_shape_is_the_default(name: str, shape: str) -> None:
    assert f"| {shape} " in describe_encoder(name, {})[2]


def test_images_too_small_are_one_line() -> None:
    with pytest.raises(UserError, match="8x8 pixels are too small") as error:
        describe_encoder("lenet", {}, (1, 8, 8))
    assert "\n" not in str(error.value)
