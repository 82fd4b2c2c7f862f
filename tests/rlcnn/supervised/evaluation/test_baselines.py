"""Baselines of an accuracy."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.picture_files import split, write_folder

from rlcnn.data.augment import Augmentation, bring_to_size
from rlcnn.data.augment_options import AugmentConfig
from rlcnn.data.batches import Batches
from rlcnn.data.folders import load_folder
from rlcnn.data.images import (
    UNKNOWN,
    Episodes,
    ImageFiles,
    Split,
    StackedFrames,
    StoredImages,
    Task,
)
from rlcnn.encoders import create_encoder
from rlcnn.supervised.evaluation.baselines import fit_linear, majority

GAME = Task("game", ("a", "b"))


def batches(data: Split) -> tuple[Batches, Batches]:
    augmentation = Augmentation(AugmentConfig(flip=True), data.train)
    train, test = (
        Batches(part, augmentation, batch_size=32, seed=0, device=torch.device("cpu"))
        for part in data
    )
    return train, test


def test_the_majority_is_that_of_the_training_images() -> None:
    tasks = [Task("class", ("a", "b", "c"))]
    train = torch.tensor([[1], [1], [0], [UNKNOWN], [UNKNOWN], [UNKNOWN]])
    test = torch.tensor([[0], [0], [0], [1], [UNKNOWN]])
    assert majority(train, test, tasks).figures == {"test/top1": 0.25}


def test_the_majority_of_each_task_is_its_own() -> None:
    tasks = [Task("one", ("a", "b")), Task("two", tuple("abcdef"))]
    train = torch.tensor([[1, 5], [1, 5], [0, 2]])
    figures = majority(train, torch.tensor([[1, 2], [0, 5]]), tasks).figures
    assert figures["test/top1/one"] == figures["test/top1/two"] == 0.5
    assert figures["test/top1"] == 0.5


def test_a_linear_function_of_pixels_is_found() -> None:
    data = split(40)
    figures = fit_linear(None, *batches(data), seed=0).figures
    # Where an image is bright, a linear layer sees.
    assert figures["test/top1"] > 0.95


def test_a_nonlinear_function_of_pixels_is_not_found() -> None:
    random = torch.Generator().manual_seed(0)
    parts = []
    for count in (400, 200):
        # Whether two pixels are alike: exclusive or, which no line divides.
        bits = torch.randint(0, 2, (count, 2), generator=random)
        images = torch.zeros(count, 1, 16, 16, dtype=torch.uint8)
        images[:, 0, :, :8] = (bits[:, 0, None, None] * 255).byte()
        images[:, 0, :, 8:] = (bits[:, 1, None, None] * 255).byte()
        labels = (bits[:, 0] == bits[:, 1]).long()
        parts.append(StoredImages(images, labels, [Task("alike", ("no", "yes"))]))
    data = Split(*parts)
    figures = fit_linear(None, *batches(data), seed=0).figures
    # By a line at most three of the four cases are right.
    assert figures["test/top1"] < 0.85


def test_the_encoder_does_not_change() -> None:
    data = split(24)
    torch.manual_seed(0)
    encoder = create_encoder("resnet9", (3, 16, 16), width=0.125)
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    train, test = batches(data)
    figures = fit_linear(encoder, train, test, seed=0).figures
    again = fit_linear(encoder, train, test, seed=0)
    assert figures == again.figures
    assert figures["test/top1"] == again.right.double().mean()
    assert figures["test/top1"] > 0.5
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_a_pixel_that_never_changes_does_no_harm() -> None:
    data = split(24)
    for part in data:
        assert isinstance(part, StoredImages)
        part.images[:, :, 0] = 77
    figures = fit_linear(None, *batches(data), seed=0).figures
    assert figures["test/top1"] == pytest.approx(1, abs=0.1)


def test_as_many_images_are_fitted_as_are_asked_for() -> None:
    data = split(40)
    few, all_of_them = (
        fit_linear(None, *batches(data), seed=0, most=most).figures for most in (3, 10_000)
    )
    # Three images show three of six classes at most.
    assert few["test/top1"] <= 0.5
    assert all_of_them == fit_linear(None, *batches(data), seed=0).figures


def test_images_are_read_from_their_files_once(tmp_path: Path) -> None:
    data = split(12)
    for part, images in zip(("train", "test"), data, strict=True):
        assert isinstance(images, StoredImages)
        write_folder(tmp_path / part, images)
    stored = load_folder(tmp_path, seed=0)
    files = Split(*(as_files(tmp_path / part, stored.train.tasks) for part in ("train", "test")))
    config = AugmentConfig(crop=16, resize=16)
    found = []
    for each in (stored, files):
        parts = [
            Batches(
                bring_to_size(part, config),
                Augmentation(config, bring_to_size(each.train, config)),
                batch_size=32,
                seed=0,
                device=torch.device("cpu"),
            )
            for part in each
        ]
        found.append(fit_linear(None, *parts, seed=0))
    assert found[0].figures == found[1].figures
    assert torch.equal(found[0].right, found[1].right)


def as_files(folder: Path, tasks: tuple[Task, ...]) -> ImageFiles:
    """The images of a folder, decoded when asked for."""
    classes = tasks[0].classes
    paths = [path for name in classes for path in sorted((folder / name).iterdir())]
    labels = torch.tensor([classes.index(path.parent.name) for path in paths])
    return ImageFiles(paths, labels, tasks)


def two_games() -> Split:
    """Two games whose frames say the same by opposite colours, each with a task of its own."""
    tasks = [Task("a/bright", ("no", "yes")), Task("b/bright", ("no", "yes")), GAME]
    parts = []
    for seed, count in ((0, 60), (1, 40)):
        random = torch.Generator().manual_seed(seed)
        games = torch.arange(count) % 2
        bright = torch.randint(0, 2, (count,), generator=random)
        frames = torch.zeros(count + 1, 1, 16, 16, dtype=torch.uint8)
        frames[1:, 0, :8] = (200 * bright)[:, None, None].byte()
        frames[1:, 0, 8:] = (100 * games)[:, None, None].byte()
        labels = torch.full((count, 3), UNKNOWN)
        labels[games == 0, 0] = bright[games == 0]
        labels[games == 1, 1] = 1 - bright[games == 1]
        labels[:, 2] = games
        parts.append(
            StackedFrames(
                frames,
                torch.arange(1, count + 1)[:, None],
                labels,
                tasks,
                {},
                Episodes(games, torch.arange(count) // 10 * 2 + games),
            )
        )
    return Split(*parts)


def test_each_games_tasks_are_fitted_on_its_own_frames() -> None:
    data = two_games()
    found = fit_linear(None, *batches(data), seed=0)
    assert found.figures == {
        "test/top1": 1.0,
        "test/top1/a/bright": 1.0,
        "test/top1/b/bright": 1.0,
        "test/top1/game": 1.0,
    }
    assert torch.equal(found.right, data.test.labels != UNKNOWN)
