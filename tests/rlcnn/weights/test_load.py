"""Weights files: what goes in comes out, and what cannot be used is refused whole."""

from __future__ import annotations

import argparse
import bz2
import gzip
import json
import lzma
import os
import pickle
import shlex
import subprocess
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, safe_open, save_file
from torchvision import models
from torchvision.io import ImageReadMode, read_image
from torchvision.transforms import CenterCrop

from envs.errors import UserError
from rlcnn.encoders import (
    Encoder,
    create_encoder,
    encoder_options,
    list_architectures,
    list_encoders,
)
from rlcnn.runs.directory import RunDirectory
from rlcnn.weights.load import (
    load_encoder,
    load_into,
    read_about,
    read_tensors,
    save_encoder,
    save_tensors,
)
from rlcnn.weights.nearest import without_values
from rlcnn.weights.placement import fill
from rlcnn.weights.report import LoadReport
from rlcnn.weights.states import STATE_KEYS

SHAPE = (4, 40, 40)
LARGER = {"alexnet_2012": (4, 67, 67), "zfnet": (4, 47, 47)}
RGB = (3, 40, 40)
BACKBONE = "squeezenet1_1:features.4"


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
    shape = LARGER.get(name, SHAPE)
    options = {"features_dim": 7} if "features_dim" in encoder_options(name) else {}
    encoder = create_encoder(name, shape, **options)
    path = tmp_path / "encoder.safetensors"
    save_encoder(encoder, path, {"accuracy": 0.5})
    loaded = load_encoder(path)
    assert type(loaded) is type(encoder)
    assert loaded.spec() == encoder.spec()
    assert equal(loaded, encoder)
    assert read_about(path) == {"accuracy": 0.5}
    other = create_encoder(name, shape, **options)
    report = load_into(other, path)
    everything = tuple(encoder.state_dict())
    assert report == LoadReport(everything, {}, (), (), f'"{path}"', report.origin)
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
    assert str(report) == (
        f'tensors from "{tmp_path}/half.safetensors": 7 loaded, 1 adapted, 0 new '
        f"(trunk.c1.bias: {change})"
    )
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
        "text": b"weights " * 100,
    }
    for name, content in broken.items():
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(content)
        assert "not a whole safetensors file" in refusal(path)
        with pytest.raises(UserError, match="not a whole safetensors file"):
            load_encoder(path)
    torch.save({"bomb": Bomb()}, tmp_path / "bomb.pth")
    (tmp_path / "bare.pth").write_bytes(pickle.dumps(Bomb()))
    torch.save(create_encoder("nature", SHAPE).state_dict(), whole.with_suffix(".pth"))
    data = whole.with_suffix(".pth").read_bytes()
    (tmp_path / "truncated.pth").write_bytes(data[:-1000])
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "renamed.safetensors").write_bytes(pickle.dumps(Bomb()))
    for name, said in (
        ("bomb.pth", "holds more than tensors (posix.mkdir)"),
        ("bare.pth", "is a pickle, which is not loaded since it could run code"),
        ("renamed.safetensors", "is a pickle, which is not loaded since it could run code"),
        ("truncated.pth", "is truncated or damaged"),
        ("empty.pth", "it is empty"),
    ):
        assert said in refusal(tmp_path / name)
    assert not (tmp_path / "exploded").exists()


def test_missing_files_name_the_nearest(tmp_path: Path) -> None:
    save_encoder(create_encoder("lenet", SHAPE), tmp_path / "pong.safetensors")
    message = refusal(tmp_path / "ping.safetensors")
    assert message.endswith('does not exist. Did you mean "pong.safetensors"?')
    # No file can have such a name.
    assert refusal(tmp_path / ("x" * 300)).endswith("does not exist.")


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


# Files of torch.


@pytest.mark.parametrize(
    "inside, name",
    [
        *((key, "e.pth") for key in ("", *STATE_KEYS)),
        *(("", name) for name in ("e.bin", "e.pth.tar", "e.ckpt", "e.th", "e")),
    ],
)
def test_files_of_torch_load_like_any_other(inside: str, name: str, tmp_path: Path) -> None:
    source, target = create_encoder("lenet", SHAPE), create_encoder("lenet", SHAPE)
    state = source.state_dict()
    torch.save({inside: state, "epoch": 3} if inside else state, tmp_path / name)
    report = load_into(target, tmp_path / name)
    assert equal(source, target)
    assert report.loaded == tuple(state)


def test_a_file_of_torch_without_weights_is_refused(tmp_path: Path) -> None:
    torch.save([torch.zeros(3)], tmp_path / "list.pth")
    assert "holds no state_dict" in refusal(tmp_path / "list.pth")


def test_an_old_file_of_torch_and_safetensors_of_any_name_load(tmp_path: Path) -> None:
    source, target = create_encoder("lenet", SHAPE), create_encoder("lenet", SHAPE)
    state = source.state_dict()
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    load_into(target, tmp_path / "old.pth")
    assert equal(source, target)
    target = create_encoder("lenet", SHAPE)
    save_file(state, tmp_path / "weights.bin")
    load_into(target, tmp_path / "weights.bin")
    assert equal(source, target)


def test_a_safetensors_file_may_begin_as_a_pickle_does(tmp_path: Path) -> None:
    """By the length of its header."""
    path = tmp_path / "e.safetensors"
    for length in range(0, 256, 8):
        save_tensors(path, {"a": torch.ones(2)}, {"note": "x" * length})
        if path.read_bytes()[0] == 0x80:
            break
    else:
        raise AssertionError("no header of such a length")
    assert len(read_tensors(path).metadata["note"]) == length


def test_a_folder_of_hugging_face_loads(tmp_path: Path) -> None:
    source, target = create_encoder("lenet", SHAPE), create_encoder("lenet", SHAPE)
    (tmp_path / "config.json").write_text('{"architecture": "lenet"}')
    torch.save(source.state_dict(), tmp_path / "pytorch_model.bin")
    assert load_into(target, tmp_path).origin is not None
    assert equal(source, target)
    source = create_encoder("lenet", SHAPE)
    save_file(source.state_dict(), tmp_path / "model.safetensors")
    load_into(target, tmp_path)
    assert equal(source, target)


def test_folders_of_weights_load_or_name_a_file_that_they_hold(tmp_path: Path) -> None:
    source, target = create_encoder("lenet", SHAPE), create_encoder("lenet", SHAPE)
    bare, hub, keras = (tmp_path / name for name in ("bare", "models--x--y", "keras"))
    snapshot = hub / "snapshots" / "1a2b"
    for folder in (bare, snapshot, keras):
        folder.mkdir(parents=True)
    save_file(source.state_dict(), bare / "model.safetensors")
    load_into(target, bare)
    assert equal(source, target)
    save_file(source.state_dict(), snapshot / "model.safetensors")
    assert refusal(hub).endswith(f'such as "{snapshot / "model.safetensors"}".')
    # A configuration does not make it a run.
    (keras / "config.json").write_text("{}")
    (keras / "tf_model.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    assert refusal(keras).endswith(f'such as "{keras / "tf_model.h5"}".')
    (keras / "tf_model.h5").unlink()
    assert refusal(keras).endswith("or pytorch_model.bin.")
    address = "https://download.pytorch.org/models/resnet18-f37072fd.pth"
    assert refusal(Path(address)).endswith("does not exist. Download it first, and give the file.")


def run_command(message: str) -> None:
    """Runs the Python code that a line advises."""
    code = shlex.split(message[message.index("python -c ") :])[2]
    exec(code, {})


def test_what_holds_more_than_tensors_is_saved_anew_by_the_command_it_is_refused_with(
    tmp_path: Path,
) -> None:
    source, target = create_encoder("lenet", SHAPE), create_encoder("lenet", SHAPE)
    path = tmp_path / "run.pth.tar"
    for old in (True, False):
        content = {"state_dict": source.state_dict(), "args": argparse.Namespace(lr=0.1)}
        torch.save(content, path, _use_new_zipfile_serialization=not old)
        message = refusal(path, target)
        assert "holds more than tensors (argparse.Namespace)" in message
        assert "weights_only=False" not in message
        run_command(message)
        load_into(target, tmp_path / "run-weights.pth")
        assert equal(source, target)
        source = create_encoder("lenet", SHAPE)
    torch.save(source, path)
    message = refusal(path, target)
    assert "only if you trust whoever made it" in message
    run_command(message)
    load_into(target, tmp_path / "run-weights.pth")
    assert equal(source, target)


def test_files_of_other_kinds_are_told_with_the_command_that_makes_one_that_loads(
    tmp_path: Path,
) -> None:
    source, target = create_encoder("lenet", SHAPE), create_encoder("lenet", SHAPE)
    state = source.state_dict()
    script = tmp_path / "script.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(torch.nn.Linear(2, 2)).save(str(script))
    message = refusal(script)
    assert "is a TorchScript file" in message
    run_command(message)
    assert read_tensors(tmp_path / "script-weights.pth").tensors.keys() == {"weight", "bias"}
    np.savez(tmp_path / "arrays.npz", **{name: t.numpy() for name, t in state.items()})
    message = refusal(tmp_path / "arrays.npz")
    assert "holds NumPy arrays" in message
    run_command(message)
    load_into(target, tmp_path / "arrays-weights.pth")
    assert equal(source, target)
    for number, name in enumerate(state, start=1):
        shard = f"model-{number:05}-of-{len(state):05}.safetensors"
        save_file({name: state[name]}, tmp_path / shard)
    (tmp_path / "config.json").write_text("{}")
    index = tmp_path / "model.safetensors.index.json"
    names = {
        name: f"model-{n:05}-of-{len(state):05}.safetensors" for n, name in enumerate(state, 1)
    }
    index.write_text(json.dumps({"metadata": {}, "weight_map": {**names, "b": "gone.bin"}}))
    assert refusal(tmp_path).endswith('lists a file that is not beside it: "gone.bin".')
    index.write_text(json.dumps({"metadata": {}, "weight_map": names}))
    message = refusal(tmp_path)
    assert "lists several weights files" in message
    run_command(message)
    load_into(create_encoder("lenet", SHAPE), tmp_path / "model-weights.pth")


@pytest.mark.parametrize(
    "content, said",
    [
        (b"\x89HDF\r\n\x1a\n" + bytes(20), "TensorFlow or Keras file"),
        (b"\x08\x07\x12\x07pytorch", "is an ONNX file: python -c"),
        (b"\x08\x01\x12\x07of TF", "of another format"),
        (b"\x80", "is truncated or damaged"),
        (b"\x93NUMPY" + bytes(20), "one NumPy array"),
        (b"\x1f\x8b" + bytes(20), "compressed by gzip"),
        (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        (b"\x28\xb5\x2f\xfd" + bytes(20), "compressed by zstd: unpack it first"),
        (b"7z\xbc\xaf\x27\x1c" + bytes(20), "7z archive: unpack it first"),
        (b"<!DOCTYPE html><html>", "is a web page"),
        (b'{"lr": 0.1}', "is a JSON file"),
        (b"PK\x03\x04" + bytes(20), "truncated or damaged"),
    ],
)
def test_other_kinds_are_known_by_their_first_bytes(
    content: bytes, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    assert said in refusal(path)


def test_archives_of_others_are_told_apart(tmp_path: Path) -> None:
    for member, said in (
        ("policy.pth", "saved by stable-baselines3: unzip"),
        ("model.weights.h5", "is a Keras file"),
        ("readme.txt", "is a zip archive without weights"),
        ("e/archive_format", "is a file of torch.export: python -c"),
        ("e/data.pkl", "is truncated or damaged"),
    ):
        with zipfile.ZipFile(tmp_path / "weights.zip", "w") as archive:
            archive.writestr(member, "")
        assert said in refusal(tmp_path / "weights.zip")


@pytest.mark.parametrize("prefix", ["module.", "model.", "backbone.", "module.encoder.", "a.b."])
def test_a_prefix_of_all_names_is_taken_off_and_told(prefix: str, tmp_path: Path) -> None:
    source, target = create_encoder("lenet", SHAPE), create_encoder("lenet", SHAPE)
    state = {f"{prefix}{name}": tensor for name, tensor in source.state_dict().items()}
    path = tmp_path / "e.safetensors"
    # What has another prefix, such as a classifier beside it, is not needed.
    for more in ({}, {"fc.bias": torch.zeros(2)}):
        save_file(state | more, path)
        report = load_into(target, path)
        assert equal(source, target)
        assert (report.prefix, report.unused) == (prefix, tuple(more))
        assert f'names without their prefix "{prefix}"' in str(report)
        assert report.to_json()["prefix"] == prefix


def test_two_encoders_in_one_file_are_not_chosen_between(tmp_path: Path) -> None:
    one, other = (create_encoder("lenet", SHAPE).state_dict() for _ in range(2))
    both = {f"student.{n}": t for n, t in one.items()} | {
        f"teacher.{n}": t for n, t in other.items()
    }
    save_file(both, tmp_path / "e.safetensors")
    message = refusal(tmp_path / "e.safetensors", create_encoder("lenet", SHAPE))
    assert 'more than once, with the prefixes "student.", "teacher."' in message


def test_a_part_of_the_own_tensors_keeps_its_names(tmp_path: Path) -> None:
    state = create_encoder("lenet", SHAPE).state_dict()
    save_file({"trunk.c1.bias": state["trunk.c1.bias"]}, tmp_path / "e.safetensors")
    message = refusal(tmp_path / "e.safetensors", create_encoder("lenet", SHAPE))
    assert "missing: trunk.c1.weight, trunk.c3.weight" in message
    assert "left over" not in message


def test_a_prefix_hides_no_other_network(tmp_path: Path) -> None:
    state = models.squeezenet1_0(weights=None).state_dict()
    save_file({f"module.{n}": t for n, t in state.items()}, tmp_path / "e.safetensors")
    assert refusal(tmp_path / "e.safetensors").endswith('It fits encoder "squeezenet1_0".')


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e300])
def test_weights_that_are_no_finite_numbers_are_refused(value: float, tmp_path: Path) -> None:
    state = create_encoder("lenet", SHAPE).state_dict()
    weight = state["trunk.c1.weight"].double()
    weight[0, 0, 0, 0] = value
    state["trunk.c1.weight"] = weight
    save_file({f"module.{n}": t for n, t in state.items()}, tmp_path / "e.safetensors")
    message = refusal(tmp_path / "e.safetensors", create_encoder("lenet", SHAPE))
    assert message.endswith(
        "not finite (NaN or infinite), as a training that diverged"
        " leaves them: in: trunk.c1.weight."
    )


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: {"network": s, "step": 1},
        lambda s: {"module": s, "optimizer": None},
        lambda s: {"checkpoint": {"model": s}, "epoch": 1},
        lambda s: {"run": {"kept": [{"best": s}, 3]}, "optimizer": {"state": {0: {"step": s}}}},
        lambda s: (s, {"epoch": 1}),
        lambda s: {"net": {"depth": 3}, "ema": s},
        lambda s: {"state_dict": {}, "model": s},
        lambda s: {"model": {**s, "version": 3}},
        lambda s: {**s, "_extra_state": None},
        lambda s: {n.replace("trunk.", "trunk._orig_mod."): t for n, t in s.items()},
        lambda s: {
            "_fsdp_wrapped_module." + n.replace("trunk.", "trunk._checkpoint_wrapped_module."): t
            for n, t in s.items()
        },
    ],
)
def test_weights_are_found_wherever_scripts_put_them(
    wrap: Callable[[dict[str, Any]], Any], tmp_path: Path
) -> None:
    source, target = create_encoder("lenet", SHAPE), create_encoder("lenet", SHAPE)
    torch.save(wrap(source.state_dict()), tmp_path / "e.pt")
    load_into(target, tmp_path / "e.pt")
    assert equal(source, target)


def test_commands_hold_for_any_name_protocol_and_content(tmp_path: Path) -> None:
    source = create_encoder("lenet", SHAPE)
    state = source.state_dict()
    arrays = {"model": {name: tensor.numpy() for name, tensor in state.items()}}
    args = {"state_dict": state, "args": argparse.Namespace(lr=0.1)}
    note = {"state_dict": state, "meta": {"seed": np.int64(3)}}
    torch.save(args, tmp_path / "it's $HOME `x`.pth")
    torch.save(state, tmp_path / "protocol.pth", pickle_protocol=4)
    torch.save(arrays, tmp_path / "arrays.pth")
    torch.save({"model": source, "ema": None}, tmp_path / "module.pth")
    torch.save(note, tmp_path / "note.pth")
    (tmp_path / "detectron.pkl").write_bytes(pickle.dumps(arrays))
    for path in list(tmp_path.iterdir()):
        target = create_encoder("lenet", SHAPE)
        run_command(refusal(path, target))
        load_into(target, path.with_name(f"{path.stem}-weights.pth"))
        assert equal(source, target)


def test_compressed_files_are_unpacked_by_the_command(tmp_path: Path) -> None:
    torch.save(create_encoder("lenet", SHAPE).state_dict(), tmp_path / "e.pth")
    for name, compress in (
        ("e.pth.gz", gzip.compress),
        ("it's.pth", gzip.compress),
        ("e.pth.bz2", bz2.compress),
        ("e.xz", lzma.compress),
    ):
        path = tmp_path / name
        path.write_bytes(compress((tmp_path / "e.pth").read_bytes()))
        message = refusal(path)
        command = message[message.index("unpack it first: ") + len("unpack it first: ") :]
        subprocess.run(["bash", "-c", command], check=True)
        load_into(create_encoder("lenet", SHAPE), shlex.split(command)[-1])
    for kind in ("gz", "bz2", "xz"):
        with tarfile.open(tmp_path / f"e.tar.{kind}", f"w:{kind}") as archive:
            archive.add(tmp_path / "e.pth")
        assert f"tar -xf {tmp_path}/e.tar.{kind}" in refusal(tmp_path / f"e.tar.{kind}")
    with tarfile.open(tmp_path / "e.tar", "w") as archive:
        archive.add(tmp_path / "e.pth")
    assert "tar -xf" in refusal(tmp_path / "e.tar")


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda t: (t * 100).to(torch.int8), "torch.int8"),
        (lambda t: t.to(torch.complex64), "torch.complex64"),
        (lambda t: t.to_sparse(), "sparse"),
        (lambda t: t.to("meta"), "no values"),
    ],
)
def test_tensors_that_are_no_plain_numbers_are_refused(
    change: Callable[[torch.Tensor], torch.Tensor], said: str, tmp_path: Path
) -> None:
    state = create_encoder("lenet", SHAPE).state_dict()
    torch.save({name: change(tensor) for name, tensor in state.items()}, tmp_path / "e.pt")
    assert said in refusal(tmp_path / "e.pt", create_encoder("lenet", SHAPE))


# Published networks.


def refusals_of(networks: list[str], tried: dict[str, tuple[int, int, int]]) -> None:
    """Tries whole networks without values in encoders, none of which is theirs."""
    targets = [create_encoder(name, shape) for name, shape in tried.items()]
    for name in networks:
        with without_values():
            meta = models.get_model(name, weights=None).state_dict()
        state = {key: torch.zeros(()).expand(tensor.shape) for key, tensor in meta.items()}
        for target in targets:
            if target.name.split(":")[0] == name:
                continue
            with pytest.raises(UserError) as caught:
                fill(target, state, "the file")
            message = str(caught.value)
            assert "\n" not in message
            # Files of these two have auxiliary classifiers, which the encoder has not.
            fits = "is nearest to" if name in ("googlenet", "inception_v3") else "fits"
            assert message.endswith(f'It {fits} encoder "{name}".')


def test_networks_that_compute_their_widths_are_named_too() -> None:
    refusals_of(["regnet_x_400mf", "googlenet"], {"nature": SHAPE})


@pytest.mark.slow
def test_every_published_network_is_named_where_it_does_not_fit() -> None:
    tried = {"nature": SHAPE, "impala": SHAPE, "squeezenet1_0": RGB}
    refusals_of(list_architectures(), tried)


def backbone(shape: tuple[int, int, int], name: str = BACKBONE, **options: Any) -> Encoder:
    return create_encoder(name, shape, **options).eval()


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A whole network of torchvision, as it would be downloaded."""
    torch.manual_seed(1)
    path = tmp_path / "squeezenet1_1.pth"
    torch.save(models.squeezenet1_1(weights=None).state_dict(), path)
    return path


def test_a_published_network_loads_up_to_the_node(published: Path) -> None:
    encoder = backbone((4, 40, 40))
    report = load_into(encoder, published)
    state = torch.load(published, weights_only=True)
    trunk = [name for name in encoder.state_dict() if name.startswith("trunk.")]
    assert report.loaded == tuple(trunk)
    for name in trunk:
        own, theirs = encoder.state_dict()[name], state[name.removeprefix("trunk.network.")]
        assert torch.equal(own, theirs)
    assert all(name.startswith("projection.") for name in report.new)
    assert {*report.unused, *(n.removeprefix("trunk.network.") for n in trunk)} == state.keys()
    assert str(report).endswith(
        "(projection.* (4 tensors): new; features.* (36 tensors): left unused; "
        "classifier.* (2 tensors): left unused)"
    )


def test_the_whole_network_leaves_nothing_unused(published: Path) -> None:
    report = load_into(backbone(RGB, "squeezenet1_1:logits", projection="none"), published)
    assert (report.new, report.unused) == ((), ())


def test_filters_for_rgb_are_inflated_and_it_is_said_how(published: Path) -> None:
    encoder = backbone((4, 40, 40), stacking="inflated")
    report = load_into(encoder, published)
    first = "trunk.network.features.0.weight"
    assert report.adapted == {first: "filters summed over RGB and shared among 4 frames"}
    rgb = torch.load(published, weights_only=True)["features.0.weight"]
    expected = rgb.sum(dim=1, keepdim=True).expand(-1, 4, -1, -1) / 4
    torch.testing.assert_close(encoder.get_parameter(first).data, expected)


@pytest.mark.parametrize("channels, said", [(1, "1 channel, not 3"), (4, "4 channels, not 3")])
def test_weights_for_stacks_of_grey_frames_need_an_inflated_network(
    channels: int, said: str, published: Path
) -> None:
    state = torch.load(published, weights_only=True)
    state["features.0.weight"] = torch.zeros(64, channels, 3, 3)
    torch.save(state, published)
    message = refusal(published, backbone((channels, 40, 40)))
    assert f"images of {said}:" in message
    assert message.endswith(f"--encoder-options stacking inflated --frame-stack {channels}.")
    load_into(backbone((channels, 40, 40), stacking="inflated"), published)


def test_any_other_classifier_is_left_unused(published: Path) -> None:
    encoder = backbone((4, 40, 40))
    state = torch.load(published, weights_only=True)
    state = {name: t for name, t in state.items() if not name.startswith("classifier")}
    others = ("classifier.0.weight", "classifier.3.bias", "head.weight", "temperature")
    torch.save(state | dict.fromkeys(others, torch.zeros(3)), published)
    assert load_into(encoder, published).unused[-4:] == others
    # A part of the trunk's own that it has no place for is another network.
    torch.save(state | {"features.99.weight": torch.zeros(3)}, published)
    assert "left over: features.99.weight." in refusal(published, encoder)


def test_another_network_is_refused_with_the_nearest(tmp_path: Path) -> None:
    path = tmp_path / "some.safetensors"
    save_file(models.squeezenet1_0(weights=None).state_dict(), path)
    message = refusal(path, backbone(RGB))
    assert message.endswith('It fits encoder "squeezenet1_0".')
    assert refusal(path).endswith('It fits encoder "squeezenet1_0".')
    save_file(create_encoder("lenet", RGB).state_dict(), path)
    assert refusal(path, backbone(RGB)).endswith('It fits encoder "lenet".')


def test_a_network_of_other_classes_or_cut_short_is_told_by_its_tensors(published: Path) -> None:
    state = torch.load(published, weights_only=True)
    del state["features.0.bias"]
    torch.save(state, published)
    assert "missing: trunk.network.features.0.bias." in refusal(published, backbone(RGB))


def test_weights_for_rgb_do_not_fit_one_channel(tmp_path: Path) -> None:
    save_encoder(create_encoder("nature", RGB), tmp_path / "e.safetensors")
    message = refusal(tmp_path / "e.safetensors", create_encoder("nature", (1, 40, 40)))
    assert "trunk.conv1.weight (32, 3, 8, 8) instead of (32, 1, 8, 8)" in message
    assert message.endswith(
        "They were made for images of 3 channels, not 1: train_agent.py makes such observations "
        "with --obs rgb --frame-stack 1."
    )
    save_encoder(create_encoder("nature", (2, 40, 40)), tmp_path / "e.safetensors")
    assert refusal(tmp_path / "e.safetensors").endswith("with --frame-stack 2.")


def test_a_trunk_goes_to_other_options_and_nodes(tmp_path: Path) -> None:
    deep = backbone(RGB, "squeezenet1_1:features.7", pooling="mean", projection="none")
    path = tmp_path / "e.safetensors"
    save_encoder(deep, path)
    encoder = backbone((12, 40, 40))
    report = load_into(encoder, path)
    assert all(
        n in deep.state_dict() and torch.equal(deep.state_dict()[n], v)
        for n, v in encoder.state_dict().items()
        if n.startswith("trunk.")
    )
    assert all(name.startswith("projection.") for name in report.new)
    assert {name.split(".")[3] for name in report.unused} == {"6", "7"}
    # What comes after the trunk is another encoder's, even where its shapes fit.
    save_encoder(backbone((12, 40, 40), projection_seed=1), path)
    report = load_into(backbone((12, 40, 40)), path)
    assert sorted(report.unused) == sorted(report.new)
    assert all(name.startswith("projection.") for name in report.unused)


def test_the_same_encoder_comes_back_with_its_projection(tmp_path: Path) -> None:
    for options in ({}, {"projection": "random", "features_dim": 8}, {"stacking": "inflated"}):
        encoder = backbone((4, 40, 40), **options)
        save_encoder(encoder, tmp_path / "e.safetensors")
        loaded = load_encoder(tmp_path / "e.safetensors")
        assert loaded.spec() == encoder.spec()
        assert equal(loaded, encoder)


def test_imagenet_weights_belong_to_published_networks() -> None:
    with pytest.raises(UserError, match='no ImageNet weights for encoder "nature"'):
        load_into(create_encoder("nature", SHAPE), "imagenet")


def test_without_a_network_it_is_told_how_to_pass_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def no_network(*args: Any, **kwargs: Any) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", no_network)
    monkeypatch.setattr("torch.hub.urlopen", no_network)
    with pytest.raises(UserError, match=r"no route to host.*squeezenet1_1.*--weights PATH") as e:
        load_into(backbone(RGB), "imagenet")
    assert "\n" not in str(e.value)


def test_imagenet_weights_are_torchvisions_download(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if downloaded before; torchvision checks hashes of what it downloads only.
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    url = models.SqueezeNet1_1_Weights.DEFAULT.url
    published.rename(cache / url.split("/")[-1])
    report = load_into(backbone(RGB), "imagenet")
    assert report.source == f'the ImageNet weights of "{BACKBONE}"'
    assert len(report.loaded) == 14


# Real weights.


@pytest.fixture
def squeezenet() -> Path:
    folder = os.environ.get("RLCNN_DATA")
    if not folder or not (Path(folder) / "squeezenet1_0-imagenet.safetensors").is_file():
        pytest.skip("RLCNN_DATA does not name a folder with squeezenet1_0-imagenet.safetensors")
    return Path(folder) / "squeezenet1_0-imagenet.safetensors"


def test_real_weights_classify_real_photographs(squeezenet: Path) -> None:
    encoder = create_encoder("squeezenet1_0:logits", (3, 227, 227), projection="none").eval()
    report = load_into(encoder, squeezenet)
    assert len(report.loaded) == 52
    folder = squeezenet.parent / "imagenet-samples"
    rows = (folder / "labels.csv").read_text().splitlines()[1:17]
    correct = 0
    for row in rows:
        file, label, _ = row.split(",")
        photograph = CenterCrop(227)(read_image(str(folder / file), ImageReadMode.RGB))
        with torch.no_grad():
            correct += int(encoder(photograph[None]).argmax()) == int(label)
    # Published as 62% on many more.
    assert correct >= 8


# Runs.


@pytest.mark.parametrize("prefix", ["", "q_net."])
def test_weights_come_from_the_newest_checkpoint_of_a_run(prefix: str, tmp_path: Path) -> None:
    old, new = create_encoder("lenet", SHAPE), create_encoder("lenet", SHAPE)
    with RunDirectory.create(tmp_path / "run", {}) as run:
        for step, encoder in ((10, old), (20, new)):
            state = encoder.state_dict()
            tensors = {f"{prefix}features_extractor.encoder.{n}": t for n, t in state.items()}
            # As PPO shares its encoder, and as DQN has a target network.
            tensors |= {f"pi_features_extractor.encoder.{n}": t for n, t in state.items()}
            tensors |= {"q_net_target.w": torch.zeros(2), "action_net.bias": torch.zeros(3)}
            with run.new_checkpoint(step) as directory:
                spec = {"encoder": encoder.spec(), "step": step}
                save_tensors(directory / "policy.safetensors", tensors, spec)
    target = create_encoder("lenet", SHAPE)
    report = load_into(target, tmp_path / "run")
    assert equal(target, new)
    assert sorted(report.unused) == ["action_net.bias", "q_net_target.w"]
    load_into(target, run.checkpoints()[0] / "policy.safetensors")
    assert equal(target, old)
    assert 'of encoder "lenet"' in refusal_of_run(tmp_path / "run")


def refusal_of_run(run: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_into(create_encoder("nature", SHAPE), run)
    return str(caught.value)


def test_a_run_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with RunDirectory.create(tmp_path / "run", {}):
        pass
    assert "no whole checkpoint" in refusal(tmp_path / "run")
    assert "is a directory, but not a run" in refusal(tmp_path)
