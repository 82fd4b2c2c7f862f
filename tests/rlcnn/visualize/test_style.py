"""Style transfer: its terms against hand-computed values, the paper's layers, and what it does."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import pytest
import torch

from envs.errors import UserError
from rlcnn.encoders import Encoder, create_encoder
from rlcnn.visualize.gallery.options import StyleOptions
from rlcnn.visualize.nodes import list_layers
from rlcnn.visualize.style import (
    Transfer,
    default_layers,
    draw_transfer,
    gram_matrix,
    style_loss,
    total_variation,
    transfer_style,
)


def test_a_gram_matrix_is_the_mean_of_products_of_channels() -> None:
    maps = torch.tensor([[1.0, 2.0, 3.0, 4.0], [0.0, 1.0, 0.0, 1.0]]).view(1, 2, 2, 2)
    # 1 + 4 + 9 + 16, 2 + 4 and 1 + 1, each over four positions.
    assert gram_matrix(maps).tolist() == [[[7.5, 1.5], [1.5, 0.5]]]


def test_the_style_loss_is_the_papers() -> None:
    random = torch.Generator().manual_seed(0)
    maps, style = torch.randn(2, 1, 3, 4, 5, generator=random)
    # Equation 4 as the paper writes it: sums over positions, divided by 4 N^2 M^2.
    own, other = (each[0].flatten(1) @ each[0].flatten(1).T for each in (maps, style))
    expected = (own - other).square().sum() / (4 * 3**2 * 20**2)
    torch.testing.assert_close(style_loss(maps, gram_matrix(style)), expected)


def test_total_variation_is_that_of_neighbours() -> None:
    image = torch.tensor([[0.0, 1.0], [3.0, 1.0]]).view(1, 1, 2, 2)
    # Down 9 and 0, to the right 1 and 4.
    assert total_variation(image) == pytest.approx(4.5 + 2.5)


def test_the_default_layers_of_vgg19_are_the_papers() -> None:
    # Without memory for its 144 million weights.
    with torch.device("meta"):
        encoder = create_encoder("vgg19:features.36", (3, 64, 64), projection="none")
    content, style = default_layers(list(list_layers(encoder).values()))
    # conv4_2; conv1_1, conv2_1, conv3_1, conv4_1 and conv5_1.
    assert content == ["features.21"]
    assert style == [f"features.{index}" for index in (0, 5, 10, 19, 28)]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    torch.manual_seed(0)
    return create_encoder("resnet9", (3, 24, 24)).eval()


def pictures() -> tuple[torch.Tensor, torch.Tensor]:
    content = torch.zeros(3, 24, 24, dtype=torch.uint8)
    content[:, 6:18, 6:18] = 200
    style = torch.zeros(3, 24, 24, dtype=torch.uint8)
    style[0, :, ::4] = 255
    return content, style


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
@pytest.mark.parametrize("start", ["content", "noise"])
def test_the_loss_falls_and_the_encoder_stays(encoder: Encoder, optimizer: str, start: str) -> None:
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    options = StyleOptions(optimizer=optimizer, start=start, steps=8, every=3)  # type: ignore[arg-type]
    seen: list[int] = []
    result = transfer_style(
        encoder, *pictures(), options, on_step=lambda step, loss: seen.append(step)
    )
    assert seen == list(range(1, 9))
    assert list(result.pictures) == [3, 6, 8]
    total = result.losses["total"]
    assert len(total) == 8
    if optimizer == "lbfgs":
        # Its line search never accepts a higher loss.
        assert all(later <= earlier for earlier, later in pairwise(total))
    assert total[-1] < 0.9 * total[0]
    # The weighted terms are the total.
    terms = [result.losses[name][-1] for name in ("content", "style", "total variation")]
    assert sum(terms) == pytest.approx(total[-1], rel=1e-5)
    assert all(torch.equal(before[n], t) for n, t in encoder.state_dict().items())
    assert not encoder.preprocessing.takes_floats
    assert draw_transfer(result).axes


@pytest.mark.parametrize(("made", "shown"), [(20, 20), (100, 28)])
def test_the_pictures_on_the_way_are_shown(made: int, shown: int) -> None:
    content, style = pictures()
    names = ("content", "style", "total variation", "total")
    transfer = Transfer(
        content,
        style,
        {10 * step: content for step in range(1, made + 1)},
        {name: [2.0, 1.0] for name in names},
    )
    titles = [axes.get_title(loc="center") for axes in draw_transfer(transfer).axes]
    steps = [title for title in titles if title.startswith("step ")]
    assert (len(steps), steps[0], steps[-1]) == (shown, "step 10", f"step {10 * made}")


def test_the_style_loss_of_the_content_itself_is_the_weight(encoder: Encoder) -> None:
    options = StyleOptions(steps=1, tv_weight=0.0, style_weight=5.0)
    first = transfer_style(encoder, *pictures(), options).losses
    assert first["style"] == pytest.approx([5.0], rel=1e-4)
    assert first["content"] == pytest.approx([0.0], abs=1e-6)


def test_a_picture_in_its_own_style_stays(encoder: Encoder) -> None:
    content, _ = pictures()
    result = transfer_style(encoder, content, content, StyleOptions(steps=3, tv_weight=0.0))
    difference = result.pictures[3].float() - content.float()
    assert difference.abs().max() <= 1


def test_layers_and_divergence_are_refused(encoder: Encoder) -> None:
    options = StyleOptions(style_layers=("residual9",))
    with pytest.raises(UserError, match='no layer "residual9"'):
        transfer_style(encoder, *pictures(), options)
    options = StyleOptions(steps=3, style_weight=1e38)
    with pytest.raises(UserError, match="no longer finite at step"):
        transfer_style(encoder, *pictures(), dataclasses.replace(options, optimizer="adam"))
