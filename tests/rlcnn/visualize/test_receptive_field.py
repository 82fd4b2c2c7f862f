"""Receptive fields against hand-computed values and against what a pixel really changes."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from envs.errors import UserError
from rlcnn.encoders import create_encoder
from rlcnn.visualize.nodes import find_layer, layer_outputs, list_layers, prepared
from rlcnn.visualize.receptive_field import FieldTracer, ReceptiveField, Window


@pytest.mark.parametrize(
    ("name", "shape", "fields"),
    [
        # 8; 8 + 3 * 4 = 20; 20 + 2 * 8 = 36.
        ("nature", (4, 84, 84), {"conv1": 8, "conv2": 20, "relu3": 36}),
        # 5; 5 + 1; 6 + 4 * 2; 14 + 2.
        ("lenet", (1, 32, 32), {"c1": 5, "s2": 6, "c3": 14, "s4": 16}),
        # Dumoulin & Visin's recurrence, layer by layer.
        (
            "alexnet:features.12",
            (3, 224, 224),
            {"features.0": 11, "features.2": 19, "features.3": 51, "features.12": 195},
        ),
        # 7, pooled 11; four convolutions of 3 at step 4; then at 4 and 8, at 8 and 16 ...
        (
            "resnet18:layer3",
            (3, 224, 224),
            {"maxpool": 11, "layer1.1.conv2": 43, "layer2.1.conv2": 99, "output": 211},
        ),
        ("squeezenet1_0", (3, 224, 224), {"features.2": 11, "features.6": 43, "output": 107}),
        # 3 + 6 * 2; + 2 + 5 * 4; + 4 + 5 * 8. Shortcuts cut every second row and column out.
        ("cifar_resnet", (3, 32, 32), {"conv": 3, "stage1": 15, "stage2": 37, "stage3": 81}),
    ],
)
def test_sizes_are_those_computed_by_hand(
    name: str, shape: tuple[int, int, int], fields: dict[str, int]
) -> None:
    layers = list_layers(create_encoder(name, shape).eval())
    found = {layer: str(layers[layer].field) for layer in fields}
    assert found == {layer: f"{size}x{size} pixels" for layer, size in fields.items()}


class Branches(nn.Module):
    """Padding on one side, dilation, two branches of different depth, and a cut."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 2, (3, 2), stride=(2, 1), padding=(1, 0))
        self.deep = nn.Conv2d(2, 2, 3, padding=2, dilation=2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.first(F.pad(images, (1, 2, 0, 1)))
        x = torch.cat((x, self.deep(x)), dim=1)
        return F.avg_pool2d(x + x.flip(1)[:, :, :, :], 2, stride=(1, 2))[:, :, :, ::2]


def test_a_value_depends_on_the_pixels_of_its_box_and_no_others() -> None:
    network, images = Branches(), torch.zeros(1, 1, 24, 30, dtype=torch.float64)
    network.double()
    tracer = FieldTracer()
    with torch.no_grad(), tracer:
        tracer.begin(images)
        output = network(images)
    field = tracer.field(output)
    assert field is not None
    # All weights are positive, so that nothing cancels.
    for parameter in network.parameters():
        parameter.data.abs_()
    row, column = output.shape[2] // 2, output.shape[3] // 2
    images.requires_grad_()
    network(images)[0, :, row, column].sum().backward()
    rows, columns = images.grad[0, 0].nonzero().T
    top, left, height, width = field.box(row, column)
    assert (int(rows.min()), int(columns.min())) == (top, left)
    assert (int(rows.max()), int(columns.max())) == (top + height - 1, left + width - 1)


@pytest.mark.parametrize(("norm", "size"), [("layer_channels", "36x36 pixels"), ("layer", "None")])
def test_a_normalisation_over_channels_alone_stays_local(norm: str, size: str) -> None:
    layers = list_layers(create_encoder("nature", (4, 84, 84), norm=norm).eval())
    assert str(layers["output"].field) == size


def test_what_mixes_all_positions_has_no_field() -> None:
    layers = list_layers(create_encoder("efficientnet_b0:features.2", (3, 64, 64)).eval())
    # Squeeze and excitation multiplies every value by a mean over the image.
    assert layers["features.0"].field == ReceptiveField(Window(3, 2, -1), Window(3, 2, -1))
    assert layers["output"].field is None


def test_maps_of_a_layer_are_those_before_the_next_works_in_place() -> None:
    encoder = create_encoder("squeezenet1_0:features.3", (3, 64, 64)).eval()
    layer = find_layer(encoder, "features.0")
    images = torch.randint(256, (2, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        maps = layer_outputs(encoder, [layer], prepared(encoder, images))["features.0"]
        expected = layer.module(encoder.preprocessing(images))
    # Its ReLU works in place.
    assert (maps < 0).any()
    torch.testing.assert_close(maps, expected)


@pytest.mark.parametrize(
    ("name", "layer", "said"),
    [
        ("nature", "conv7", 'has no layer "conv7". Did you mean "conv'),
        ("nature", "zzz", 'has no layer "zzz". It has conv1, relu1'),
        ("lenet", "s4", 'layer "s4" of encoder "lenet" has maps of 1x1 pixels, not feature maps'),
    ],
)
def test_layers_without_maps_are_refused(name: str, layer: str, said: str) -> None:
    shape = (1, 16, 16) if name == "lenet" else (4, 84, 84)
    encoder = create_encoder(name, shape)
    with pytest.raises(UserError) as refused:
        find_layer(encoder, layer)
    assert said in str(refused.value)
