"""Formats of weights files, and the commands that convert files of other formats."""

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
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support.weights import SHAPE, equal, refusal

from envs.errors import UserError
from rlcnn.encoders import create_encoder
from rlcnn.weights.load import load_encoder, load_into, read_tensors, save_encoder, save_tensors


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


def run_command(message: str) -> None:
    """Runs the Python code that a line advises."""
    code = shlex.split(message[message.index("python -c ") :])[2]
    exec(code, {})


def test_the_command_for_a_file_with_more_than_tensors_saves_its_weights(
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


def test_files_of_other_formats_get_a_command_that_converts_them(
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


def test_other_archives_are_distinguished(tmp_path: Path) -> None:
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


def test_commands_work_for_any_name_protocol_and_content(tmp_path: Path) -> None:
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
