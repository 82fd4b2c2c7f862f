"""Pictures of how images were classified are pictures, and only those there is something for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from envs.errors import UserError
from rlcnn.supervised.evaluation.assessment import Assessment
from rlcnn.supervised.evaluation.metrics import Evaluation
from rlcnn.visualize.errors import write_error_plots


def assessment(classes: int, images: int, seed: int = 0) -> Assessment:
    random = torch.Generator().manual_seed(seed)
    names = tuple(f"class {index}" for index in range(classes))
    probabilities = torch.rand(images, classes, generator=random).softmax(1)
    labels = torch.randint(classes, (images,), generator=random)
    together = Evaluation(names, labels, probabilities)
    # Places in the data, of which some images were left out.
    places = [7 + 2 * index for index in range(images)]
    return Assessment(together, [together], places, "class", 1)


def noise(channels: int) -> torch.Tensor:
    return torch.randint(256, (channels, 12, 10), dtype=torch.uint8)


@pytest.mark.parametrize(
    "classes, images, channels", [(3, 2, 1), pytest.param(100, 12, 4, marks=pytest.mark.slow)]
)
def test_three_pictures_are_written(
    classes: int, images: int, channels: int, tmp_path: Path
) -> None:
    asked: set[int] = set()

    def image(index: int) -> torch.Tensor:
        asked.add(index)
        return noise(channels)

    drawn = assessment(classes, images)
    files = write_error_plots(drawn, image, tmp_path / "plots")
    assert asked == set(drawn.indices)
    assert {"confusion.png", "top5.png"} <= {file.name for file in files}
    assert {file.name for file in (tmp_path / "plots").iterdir()} == {file.name for file in files}
    for file in files:
        with Image.open(file) as picture:
            assert picture.format == "PNG"
            assert len(picture.convert("L").getcolors(256) or ()) > 10


def test_without_errors_there_is_no_plot_of_them(tmp_path: Path) -> None:
    names = ("ant", "bee")
    right = Evaluation(names, torch.tensor([0, 1]), torch.eye(2))
    (tmp_path / "worst.png").write_bytes(b"of an earlier evaluation")
    files = write_error_plots(
        Assessment(right, [right], [0, 1], "class", 1), lambda _: noise(3), tmp_path
    )
    assert [file.name for file in files] == ["confusion.png", "top5.png"]
    assert not (tmp_path / "worst.png").exists()


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write"):
        write_error_plots(assessment(3, 2), lambda _: noise(3), tmp_path / "file" / "below")
