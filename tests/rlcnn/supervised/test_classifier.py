"""A classifier and its file, which is also its encoder's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.picture_files import refused

from envs.errors import UserError
from rlcnn.data.images import Task
from rlcnn.encoders import Encoder, create_encoder
from rlcnn.runs.files import write_json_atomic
from rlcnn.supervised.classifier import Classifier, load_classifier, save_classifier
from rlcnn.weights.load import (
    load_encoder,
    load_into,
    read_about,
    read_tensors,
    save_encoder,
    save_tensors,
)

TASKS = [Task("ball_x", ("left", "middle", "right")), Task("action", ("up", "down"))]
SHAPE = (1, 20, 20)


def encoder(shape: tuple[int, int, int] = SHAPE) -> Encoder:
    return create_encoder("lenet", shape, features_dim=8)


def images(count: int = 4) -> torch.Tensor:
    random = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, *SHAPE), dtype=torch.uint8, generator=random)


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Classifier, Path]:
    classifier = Classifier(encoder(), TASKS)
    path = tmp_path / "classifier.safetensors"
    save_classifier(classifier, path, {"data": "made up"})
    return classifier, path


def test_every_task_has_logits_of_its_own() -> None:
    logits = Classifier(encoder(), TASKS)(images())
    assert [tuple(task.shape) for task in logits] == [(4, 3), (4, 2)]


def test_the_head_computes_in_float32() -> None:
    classifier = Classifier(encoder(), TASKS)
    with torch.autocast("cpu", torch.bfloat16):
        features = classifier.encoder(images())
        logits = classifier(images())
    assert features.dtype == torch.bfloat16
    assert all(task.dtype == torch.float32 for task in logits)


def test_a_classifier_comes_back_as_it_was(saved: tuple[Classifier, Path]) -> None:
    classifier, path = saved
    loaded = load_classifier(path)
    assert loaded.tasks == tuple(TASKS)
    for mine, theirs in zip(loaded(images()), classifier(images()), strict=True):
        assert torch.equal(mine, theirs)
    assert read_about(path) == {"data": "made up"}


def test_its_file_is_its_encoders(saved: tuple[Classifier, Path]) -> None:
    classifier, path = saved
    expected = classifier.encoder(images())
    assert torch.equal(load_encoder(path)(images()), expected)
    mine = encoder()
    report = load_into(mine, path)
    assert torch.equal(mine(images()), expected)
    assert set(report.loaded) == set(mine.state_dict())
    assert set(report.unused) == {"head.weight", "head.bias"}


def test_a_pretraining_runs_directory_gives_its_best(tmp_path: Path) -> None:
    write_json_atomic(tmp_path / "config.json", {"pretraining": {}})
    (tmp_path / "checkpoints").mkdir()
    mine = encoder()
    with pytest.raises(UserError, match="no whole checkpoint"):
        load_into(mine, tmp_path)
    made = {}
    for name in ("last", "best"):
        made[name] = Classifier(encoder(), TASKS)
        save_classifier(made[name], tmp_path / f"{name}.safetensors")
        load_into(mine, tmp_path)
        assert torch.equal(mine(images()), made[name].encoder(images()))


def test_weights_for_another_number_of_channels_are_refused(saved: tuple[Classifier, Path]) -> None:
    with refused("does not fit", "trunk.c1.weight (6, 1, 5, 5) instead of (6, 3, 5, 5)"):
        load_into(encoder((3, 20, 20)), saved[1])


def test_a_file_without_classes_is_no_classifier(tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    save_encoder(encoder(), path)
    with refused(f'"{path}" holds no classifier'):
        load_classifier(path)


def test_a_head_that_does_not_fit_its_classes_is_refused(saved: tuple[Classifier, Path]) -> None:
    path = saved[1]
    file = read_tensors(path)
    file.metadata["tasks"][0]["classes"].append("beyond")
    save_tensors(path, file.tensors, file.metadata)
    with refused("its head does not fit its 6 classes", "head.weight is (5, 8) instead of (6, 8)"):
        load_classifier(path)
