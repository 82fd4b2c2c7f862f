"""Weights files: what goes in comes out, and what cannot be used is refused whole."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, safe_open, save_file

from envs.errors import UserError
from rlcnn.encoders import Encoder, create_encoder, list_encoders
from rlcnn.weights import (
    LoadReport,
    load_encoder,
    load_into,
    read_about,
    read_tensors,
    save_encoder,
    save_tensors,
)

SHAPE = (4, 40, 40)


def equal(one: Encoder, other: Encoder) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def refusal(path: Path, encoder: Encoder | None = None) -> str:
    """The one line with which a file is refused, and that the encoder is as it was."""
    encoder = encoder or create_encoder("nature", SHAPE)
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    with pytest.raises(UserError) as caught:
        load_into(encoder, path)
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


@pytest.mark.parametrize("name", list_encoders())
def test_an_encoder_comes_back_as_it_was(name: str, tmp_path: Path) -> None:
    encoder = create_encoder(name, SHAPE, features_dim=7)
    path = tmp_path / "encoder.safetensors"
    save_encoder(encoder, path, {"accuracy": 0.5})
    loaded = load_encoder(path)
    assert type(loaded) is type(encoder)
    assert loaded.spec() == encoder.spec()
    assert equal(loaded, encoder)
    assert read_about(path) == {"accuracy": 0.5}
    other = create_encoder(name, SHAPE, features_dim=7)
    report = load_into(other, path)
    assert report == LoadReport(tuple(encoder.state_dict()), {}, ())
    assert equal(other, encoder)


def test_the_file_is_plain_safetensors_with_a_json_spec(tmp_path: Path) -> None:
    encoder = create_encoder("lenet", SHAPE).to(memory_format=torch.channels_last)
    save_encoder(encoder, tmp_path / "e.safetensors")
    tensors = load_file(tmp_path / "e.safetensors")
    assert tensors.keys() == encoder.state_dict().keys()
    with safe_open(tmp_path / "e.safetensors", framework="pt") as file:
        header = json.loads(file.metadata()["rlcnn"])
    assert header["metadata"]["encoder"] == encoder.spec()


def test_saving_leaves_one_file_and_replaces_an_old_one(tmp_path: Path) -> None:
    path = tmp_path / "e.safetensors"
    save_encoder(create_encoder("lenet", SHAPE), path)
    newer = create_encoder("nature", SHAPE)
    save_encoder(newer, path)
    assert os.listdir(tmp_path) == [path.name]
    assert equal(load_encoder(path), newer)


def test_a_failed_save_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "e.safetensors"
    save_encoder(create_encoder("lenet", SHAPE), path)
    old = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="disk is full"):
        save_encoder(create_encoder("nature", SHAPE), path)
    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == [path.name]


def test_shared_tensors_are_written_once_and_read_under_every_name(tmp_path: Path) -> None:
    big = torch.randn(1000)
    tensors = {"pi.w": big, "vf.w": big, "view": big.view(10, 100), "other": torch.randn(3)}
    path = tmp_path / "shared.safetensors"
    save_tensors(path, tensors, {"step": 3})
    assert load_file(path).keys() == {"pi.w", "view", "other"}
    read, metadata = read_tensors(path)
    assert metadata == {"step": 3}
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensors[name]) for name in tensors)


def test_empty_tensors_are_not_taken_for_shared(tmp_path: Path) -> None:
    tensors = {"a": torch.empty(0), "b": torch.empty(0)}
    save_tensors(tmp_path / "e.safetensors", tensors, {})
    assert load_file(tmp_path / "e.safetensors").keys() == {"a", "b"}


def test_foreign_safetensors_load_where_they_fit(tmp_path: Path) -> None:
    source, target = create_encoder("impala", SHAPE), create_encoder("impala", SHAPE)
    path = tmp_path / "foreign.safetensors"
    save_file(source.state_dict(), path)
    load_into(target, path)
    assert equal(source, target)
    assert read_about(path) == {}
    with pytest.raises(UserError, match="does not say which encoder"):
        load_encoder(path)


def test_a_cast_is_reported(tmp_path: Path) -> None:
    source, target = create_encoder("lenet", SHAPE), create_encoder("lenet", SHAPE)
    tensors = source.state_dict()
    tensors["trunk.c1.bias"] = torch.full((6,), 0.5, dtype=torch.float16)
    save_file(tensors, tmp_path / "half.safetensors")
    report = load_into(target, tmp_path / "half.safetensors")
    change = "cast from torch.float16 to torch.float32"
    assert report.adapted == {"trunk.c1.bias": change}
    assert len(report.loaded) == 7
    assert str(report) == f"tensors: 7 loaded, 1 adapted, 0 new (trunk.c1.bias: {change})"
    assert (target.get_parameter("trunk.c1.bias") == 0.5).all()


def test_weights_that_fit_another_image_size_load(tmp_path: Path) -> None:
    source = create_encoder("impala", (4, 40, 40), pooling="mean")
    target = create_encoder("impala", (4, 64, 64), pooling="mean")
    save_encoder(source, tmp_path / "e.safetensors")
    load_into(target, tmp_path / "e.safetensors")
    assert equal(source, target)


# Refusals.


def test_another_encoder_or_other_options_are_named(tmp_path: Path) -> None:
    path = tmp_path / "e.safetensors"
    save_encoder(create_encoder("lenet", SHAPE, variant="course"), path)
    assert 'holds weights of encoder "lenet"' in refusal(path)
    # The same tensors, but meant for another activation: shapes alone would not tell.
    assert "variant='course'" in refusal(path, create_encoder("lenet", SHAPE))


@pytest.mark.parametrize("name", ["lenet", "impala"])
def test_foreign_weights_name_the_encoder_they_fit(name: str, tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    save_file(create_encoder(name, SHAPE).state_dict(), path)
    assert refusal(path).endswith(f'It fits encoder "{name}".')
    save_file(create_encoder(name, (4, 64, 64)).state_dict(), path)
    assert refusal(path).endswith(f'It is nearest to encoder "{name}".')


def test_missing_left_over_and_misshapen_tensors_are_named(tmp_path: Path) -> None:
    tensors = create_encoder("nature", SHAPE).state_dict()
    del tensors["trunk.conv1.bias"]
    tensors["head.weight"] = torch.zeros(3)
    tensors["trunk.conv2.bias"] = torch.zeros(65)
    save_file(tensors, tmp_path / "e.safetensors")
    message = refusal(tmp_path / "e.safetensors")
    assert "missing: trunk.conv1.bias;" in message
    assert "left over: head.weight;" in message
    assert "of another shape: trunk.conv2.bias (65,) instead of (64,)." in message


def test_another_image_size_is_told_by_shapes(tmp_path: Path) -> None:
    save_encoder(create_encoder("nature", (4, 64, 64)), tmp_path / "e.safetensors")
    message = refusal(tmp_path / "e.safetensors")
    assert "for observations (4, 40, 40): of another shape: projection.linear.weight" in message


class Bomb:
    """Runs code if it is ever unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("exploded",)


def test_broken_and_foreign_files_are_refused_and_never_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    whole = tmp_path / "whole.safetensors"
    save_encoder(create_encoder("nature", SHAPE), whole)
    data = whole.read_bytes()
    broken = {
        "truncated": data[:-1000],
        "in-the-header": data[:100],
        "empty": b"",
        "damaged": data[:8] + b"?" * 20 + data[28:],
        "pickled": pickle.dumps(Bomb()),
        "text": b"weights " * 100,
    }
    for name, content in broken.items():
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(content)
        assert "not a whole safetensors file" in refusal(path)
        with pytest.raises(UserError, match="not a whole safetensors file"):
            load_encoder(path)
    torch.save({"bomb": Bomb()}, tmp_path / "bomb.pth")
    assert "not a whole safetensors file" in refusal(tmp_path / "bomb.pth")
    assert not (tmp_path / "exploded").exists()


def test_missing_files_name_the_nearest(tmp_path: Path) -> None:
    save_encoder(create_encoder("lenet", SHAPE), tmp_path / "pong.safetensors")
    message = refusal(tmp_path / "ping.safetensors")
    assert message.endswith('does not exist. Did you mean "pong.safetensors"?')
    assert "is a directory" in refusal(tmp_path)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"version": 99}, "format version 99"),
        ({"name": "vggnet"}, 'unknown encoder "vggnet"'),
        ({"options": {"colour": 1}}, 'no option "colour"'),
        ({"options": None}, "cannot be read"),
        ({"observation_shape": [4, "a", 40]}, "cannot be built: an encoder takes images"),
    ],
)
def test_specs_that_cannot_be_used_are_refused(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    encoder = create_encoder("nature", SHAPE)
    path = tmp_path / "e.safetensors"
    save_tensors(path, encoder.state_dict(), {"encoder": {**encoder.spec(), **change}})
    with pytest.raises(UserError, match=message) as caught:
        load_encoder(path)
    assert str(path) in str(caught.value)
