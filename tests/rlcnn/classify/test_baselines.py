"""What an accuracy is set beside."""

from __future__ import annotations

import pytest
import torch
from picture_files import split

from rlcnn.classify.augment import Augmentation
from rlcnn.classify.baselines import linear_on_features, linear_on_pixels, majority
from rlcnn.classify.batches import Batches
from rlcnn.classify.config import AugmentConfig
from rlcnn.classify.images import UNKNOWN, Split, StoredImages, Task
from rlcnn.encoders import create_encoder


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
    assert majority(train, test, tasks) == {"test/top1": 0.25}


def test_the_majority_of_each_task_is_its_own() -> None:
    tasks = [Task("one", ("a", "b")), Task("two", tuple("abcdef"))]
    train = torch.tensor([[1, 5], [1, 5], [0, 2]])
    figures = majority(train, torch.tensor([[1, 2], [0, 5]]), tasks)
    assert figures["test/top1/one"] == figures["test/top1/two"] == 0.5
    assert figures["test/top1"] == 0.5


def test_pixels_tell_what_is_linear_in_them() -> None:
    data = split(40)
    figures = linear_on_pixels(*batches(data), data.train.tasks, seed=0)
    # Where an image is bright, a linear layer sees.
    assert figures["test/top1"] > 0.95


def test_pixels_do_not_tell_what_is_not() -> None:
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
    figures = linear_on_pixels(*batches(data), data.train.tasks, seed=0)
    # By a line at most three of the four cases are right.
    assert figures["test/top1"] < 0.85


def test_an_encoder_is_judged_as_it_is() -> None:
    data = split(24)
    torch.manual_seed(0)
    encoder = create_encoder("resnet9", (3, 16, 16), width=0.125)
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    train, test = batches(data)
    figures = linear_on_features(encoder, train, test, data.train.tasks, seed=0)
    assert figures == linear_on_features(encoder, train, test, data.train.tasks, seed=0)
    assert figures["test/top1"] > 0.5
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_a_pixel_that_never_changes_does_no_harm() -> None:
    data = split(24)
    for part in data:
        assert isinstance(part, StoredImages)
        part.images[:, :, 0] = 77
    figures = linear_on_pixels(*batches(data), data.train.tasks, seed=0)
    assert figures["test/top1"] == pytest.approx(1, abs=0.1)
