"""The origin of weights, from their files."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch

from rlcnn.encoders import create_encoder
from rlcnn.weights.load import load_into, save_encoder, save_tensors
from rlcnn.weights.origin import Origin

ABOUT = {"data": "cifar10", "recipe": "resnet-cifar-2016", "accuracy": 0.91, "run": "runs/a"}


def loaded(weights: Path) -> Origin:
    origin = load_into(create_encoder("lenet", (1, 32, 32)), weights).origin
    assert origin is not None
    return origin


def test_a_file_tells_its_hash_and_what_it_says_of_its_training(tmp_path: Path) -> None:
    path = tmp_path / "lenet.safetensors"
    save_encoder(create_encoder("lenet", (1, 32, 32)), path, ABOUT)
    origin = loaded(path)
    assert origin.weights == origin.file == str(path)
    assert origin.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert origin.about == ABOUT
    assert origin.origin is None
    assert str(origin) == (
        f'"{path}" (SHA-256 {origin.sha256[:12]}, data cifar10, recipe resnet-cifar-2016,'
        " accuracy 0.91, run runs/a)"
    )


def test_a_file_that_says_nothing_has_a_hash_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "lenet.pth"
    torch.save(create_encoder("lenet", (1, 32, 32)).state_dict(), path)
    origin = loaded(path)
    assert origin.about == {}
    assert origin.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_what_a_file_began_with_itself_is_kept(tmp_path: Path) -> None:
    first = Origin("imagenet", "https://example.org/net.pth", about={"data": "ImageNet"})
    path, encoder = tmp_path / "agent.safetensors", create_encoder("lenet", (1, 32, 32))
    described = {"algorithm": "ppo", "step": 7, "about": {"env": "ALE/Pong-v5"}}
    save_tensors(path, encoder.state_dict(), {**described, "origin": first.to_json()})
    origin = loaded(path)
    assert origin.about == {"algorithm": "ppo", "step": 7, "env": "ALE/Pong-v5"}
    assert origin.origin == first
    assert str(origin).endswith(
        'env ALE/Pong-v5), which began with "imagenet" (https://example.org/net.pth, data ImageNet)'
    )
    assert Origin.from_json(origin.to_json()) == origin


@pytest.mark.parametrize("about", ["text", None, [1], {"table": {"a": 1}, "data": "x"}])
def test_what_a_file_says_need_not_be_what_we_would_write(about: Any, tmp_path: Path) -> None:
    path, encoder = tmp_path / "odd.safetensors", create_encoder("lenet", (1, 32, 32))
    save_tensors(path, encoder.state_dict(), {"about": about, "origin": [about]})
    origin = loaded(path)
    assert origin.origin is None
    assert "table" not in str(origin)


@pytest.mark.parametrize("value", [None, 3, {}, {"weights": 3}, []])
def test_what_is_no_origin_is_none(value: Any) -> None:
    assert Origin.from_json(value) is None
