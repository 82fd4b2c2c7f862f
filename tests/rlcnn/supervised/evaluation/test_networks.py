"""Classifiers with their heads, from every kind of weights, and what is refused."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision import models

from envs.errors import UserError
from rlcnn.data.images import StoredImages, Task
from rlcnn.encoders import create_encoder
from rlcnn.runs.files import write_json_atomic
from rlcnn.supervised.classifier import Classifier, save_classifier
from rlcnn.supervised.evaluation.networks import load_network
from rlcnn.weights.load import save_encoder

NAME = "squeezenet1_1"
TASKS = (Task("class", ("ant", "bee", "cat")),)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole network of torchvision, as it would be downloaded."""
    path = tmp_path_factory.mktemp("published") / f"{NAME}.pth"
    torch.manual_seed(1)
    torch.save(models.get_model(NAME).state_dict(), path)
    return path


@pytest.fixture
def classifier() -> Classifier:
    torch.manual_seed(0)
    return Classifier(create_encoder("lenet", (1, 32, 32)), TASKS)


@pytest.fixture
def run(tmp_path: Path, classifier: Classifier) -> Path:
    """A run of pretraining, as far as it is read here."""
    config = {
        "data": "mnist",
        "data_dir": "somewhere",
        "seed": 3,
        "augment": {"resize": 0, "pad": 2, "crop": 0},
    }
    path = tmp_path / "run"
    path.mkdir()
    write_json_atomic(path / "config.json", {"pretraining": config})
    save_classifier(classifier, path / "best.safetensors", {"data": "mnist"})
    return path


def refused(said: str, *arguments: Any, **options: Any) -> None:
    with pytest.raises(UserError, match=said) as error:
        load_network(*arguments, **options)
    assert "\n" not in str(error.value)


def test_a_published_network_is_whole(published: Path) -> None:
    network = load_network(str(published), NAME, size=64, resize=70)
    assert len(network.tasks[0].classes) == 1000
    assert network.tasks[0].classes[13] == "junco"
    assert (network.transform.height, network.transform.resize) == (64, 70)
    own = models.get_model(NAME).eval()
    own.load_state_dict(torch.load(published, weights_only=True))
    images = torch.randint(256, (2, 3, 64, 64), dtype=torch.uint8)
    weights: Any = models.get_model_weights(NAME).DEFAULT
    transforms = weights.transforms(crop_size=64, resize_size=64)
    with torch.no_grad():
        expected = own(transforms(images)).softmax(1)
    torch.testing.assert_close(network.probabilities(images, 0), expected)


def test_the_published_size_is_the_default(published: Path) -> None:
    transform = load_network(str(published), NAME).transform
    assert (transform.height, transform.width, transform.resize) == (224, 224, 256)
    assert load_network(str(published), f"{NAME}:logits", size=227).transform.height == 227


def test_a_classifier_of_ours_brings_its_head(run: Path, classifier: Classifier) -> None:
    for weights in (run, run / "best.safetensors"):
        network = load_network(str(weights))
        assert network.tasks == TASKS
        assert network.channels == 1
        assert network.training["seed"] == 3
        images = torch.randint(256, (2, 1, 32, 32), dtype=torch.uint8)
        with torch.no_grad():
            expected = classifier.eval()(images)[0].softmax(1)
        assert torch.equal(network.probabilities(images, 0), expected)


def test_a_runs_own_data_are_brought_to_size_as_it_did(run: Path) -> None:
    image = torch.full((1, 28, 28), 200, dtype=torch.uint8)
    data = StoredImages(image[None], torch.tensor([0]), TASKS)
    network = load_network(str(run))
    seen = network.prepared_for("mnist", data).transform.centre(image)[0]
    assert torch.equal(seen[:, 2:-2, 2:-2], image)
    assert int(seen[:, :2].max()) == 0
    # Other images fill the network's input.
    assert int(network.prepared_for("folder:other", data).transform.centre(image).min()) == 200
    # What is said on the command line comes first.
    chosen = load_network(str(run), resize=40).prepared_for("mnist", data)
    assert (chosen.transform.resize, chosen.transform.pad) == (40, 0)


def test_weights_without_a_classifier_are_refused(
    run: Path, published: Path, tmp_path: Path
) -> None:
    alone = tmp_path / "alone.safetensors"
    save_encoder(create_encoder("lenet", (1, 32, 32)), alone)
    refused('holds encoder "lenet" alone, without a classifier', str(alone))
    refused("does not name its network: give --encoder", str(published))
    refused('encoder "lenet" has no classifier of its own', str(published), "lenet")
    refused("a whole network classifies, not", str(published), f"{NAME}:features.4")
    refused('unknown encoder "squeezenet1_2".* Did you mean', str(published), "squeezenet1_2")
    refused('a classifier of encoder "lenet", not of "nature"', str(run), "nature")
    refused("--size 64 does not apply", str(run), size=64)
    refused("hold no crop", str(published), NAME, resize=100)
    refused("there are no ImageNet weights|has no classifier", "imagenet", "nature")


def test_weights_of_another_architecture_name_their_own(published: Path) -> None:
    refused(f'does not fit encoder .* It fits encoder "{NAME}"', str(published), "alexnet")


def test_runs_without_a_classifier_are_refused(run: Path, tmp_path: Path) -> None:
    (run / "best.safetensors").unlink()
    refused("has no weights yet", str(run))
    write_json_atomic(run / "config.json", {"config": {}})
    refused("is not a run of pretrain_encoder.py", str(run))
    refused("but not a run: it has no config.json", str(tmp_path))
    refused("does not exist", str(tmp_path / "none.safetensors"))


class Bomb:
    """Runs code if it is ever unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("exploded",)


def test_a_pickle_bomb_is_refused_and_does_not_explode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"features.0.weight": Bomb()}, "bomb.pth")
    Path("bare.pth").write_bytes(pickle.dumps(Bomb()))
    refused("holds more than tensors", "bomb.pth", NAME)
    refused("is a pickle, which is not loaded", "bare.pth", NAME)
    assert not Path("exploded").exists()


def test_a_given_size_keeps_the_options_of_the_training(run: Path) -> None:
    """With the seed, which selects the held-out images."""
    assert load_network(str(run), resize=40).training["seed"] == 3
