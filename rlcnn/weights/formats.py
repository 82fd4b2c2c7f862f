"""What kind of file weights are in, told by its first bytes, and how torch's files are read.

Nothing here unpickles what could run code.
"""

from __future__ import annotations

import argparse
import bz2
import datetime
import gzip
import json
import lzma
import pathlib
import pickletools
import re
import shlex
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from envs.errors import UserError, in_shell

STATE_KEYS = (
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "state_dict_ema",
    "model_ema",
    "ema",
    "teacher",
)
"""Where training scripts keep the weights beside their optimiser's state; the first is taken."""

# Enough to recognise a file.
_FIRST_BYTES = 512

# What safetensors itself takes.
_LONGEST_HEADER = 100_000_000

# What a file of each kind begins with -> what it is, and what makes of it a file that loads.
_OTHERS: dict[bytes, tuple[str, str]] = {
    b"\x89HDF\r\n\x1a\n": (
        "a TensorFlow or Keras file (HDF5)",
        "save the weights as PyTorch tensors under the names of the network here",
    ),
    b"\x93NUMPY": (
        "one NumPy array",
        "save all arrays by name: safetensors.numpy.save_file({{NAME: ARRAY, ...}}, {new!r})",
    ),
    b"\x28\xb5\x2f\xfd": ("compressed by zstd", "unpack it first"),
    b"7z\xbc\xaf\x27\x1c": ("a 7z archive", "unpack it first"),
    b"Rar!\x1a\x07": ("a RAR archive", "unpack it first"),
    b"version https://git-lfs": (
        "a pointer of Git LFS, not the weights themselves",
        "get them first: git lfs pull",
    ),
}

# What a compressed file begins with -> the program, how Python reads it, the command that unpacks
# it, and how its name ends.
_COMPRESSED: dict[bytes, tuple[str, Callable[..., Any], str, str]] = {
    b"\x1f\x8b": ("gzip", gzip.open, "gunzip", ".gz"),
    b"BZh": ("bzip2", bz2.open, "bunzip2", ".bz2"),
    b"\xfd7zXZ\x00": ("xz", lzma.open, "unxz", ".xz"),
}

# How old files of torch begin after a byte or two: a number that torch saves first.
_TORCH_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."

# Of ONNX: the names of its producer and domain, their versions, and the graph.
_AFTER_VERSION = tuple(bytes([tag]) for tag in b"\x12\x1a\x22\x3a")

# Where a tar archive says that it is one.
_TAR = slice(257, 262)

_HARMLESS: list[Any] = [
    argparse.Namespace,
    pathlib.PosixPath,
    pathlib.PurePosixPath,
    datetime.datetime,
    datetime.date,
    datetime.timedelta,
]
"""Classes in files of training scripts, whose making runs no code of the file's."""


def recognise(path: Path) -> Literal["safetensors", "torch"]:
    """Which of the two kinds that can be read a file is, whatever its name.

    Raises:
        UserError: another kind, named with the command that makes of it a file that loads; or a
            file that cannot be read, or whose kind is not known.
    """
    try:
        with path.open("rb") as file:
            start = file.read(_FIRST_BYTES)
    except OSError as error:
        raise UserError(f'cannot read "{path}": {error.strerror or error}.') from error
    # First, since the length of its header, before it, may look like the start of another kind.
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= _LONGEST_HEADER:
        return "safetensors"
    names = {"path": str(path), "new": str(path.with_suffix(".safetensors"))}
    for magic, (program, *_) in _COMPRESSED.items():
        if start.startswith(magic):
            raise UserError(
                f'"{path}" is compressed by {program}: unpack it first: {_unpacking(path, magic)}'
            )
    if start[_TAR] == b"ustar":
        raise UserError(f'"{path}" is a tar archive: unpack it first: tar -xf {in_shell(path)}')
    for magic, (kind, advice) in _OTHERS.items():
        if start.startswith(magic):
            raise UserError(f'"{path}" is {kind}: {advice.format(**names)}.')
    if start.startswith(b"PK\x03\x04"):
        _check_archive(path)
        return "torch"
    if start.startswith(b"\x80"):
        if _TORCH_MAGIC not in start[:40] and _is_pickle(path):
            raise UserError(
                f'"{path}" is a pickle, which is not loaded since it could run code; only if you'
                " trust whoever made it, save its weights alone: "
                + _saving(f"pickle.load(open({str(path)!r}, 'rb'))", path, "pickle")
            )
        return "torch"
    text = start.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise UserError(f'"{path}" is a web page, not a weights file: download the file itself.')
    if text.startswith(b"{"):
        raise UserError(_of_json(path, start))
    if path.suffix == ".onnx" or _begins_as_onnx(path, start):
        tensors = (
            f"{{t.name: onnx.numpy_helper.to_array(t) for t in onnx.load({str(path)!r})"
            ".graph.initializer}"
        )
        raise UserError(
            f'"{path}" is an ONNX file: {_saving(tensors, path, "onnx")} saves its tensors; their'
            " names must be those of the network here."
        )
    state = "empty" if not start else "truncated, damaged or of another format"
    raise UserError(
        f'"{path}" is not a whole safetensors file, nor one of torch.save: it is {state}.'
    )


def read_torch(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file of ``torch.save``, read with ``weights_only=True``.

    A state_dict is found under the names of ``STATE_KEYS``, too.

    Raises:
        UserError: the file is damaged, holds more than tensors or no state_dict.
    """
    try:
        with warnings.catch_warnings():
            # Of a strange protocol, where it is about to be refused anyway.
            warnings.simplefilter("ignore")
            value = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f'cannot read "{path}": {error.strerror or error}.') from error
    except Exception as error:
        # Torch would go on to advise to load it with pickle: never that without a warning.
        raise UserError(_why_not_loaded(path, str(error))) from error
    state = find_state(value)
    if state is None:
        found = [str(key) for key in value][:8] if isinstance(value, dict) else []
        holds = f"; it holds {', '.join(found)}" if found else ""
        raise UserError(
            f'"{path}" holds no state_dict, a dictionary of tensors by name, itself or under one of'
            f" {', '.join(STATE_KEYS)}{holds}."
        )
    return state


def find_state(value: Any, depth: int = 4) -> dict[str, torch.Tensor] | None:
    """The tensors by name in what a training script saved; None where there are none.

    They are taken from the first of ``STATE_KEYS`` that has some, then from the only other
    dictionary that consists of tensors, then from what stands at the top, then from the only
    dictionary or list further down that has some. Arrays become tensors; what is neither, such as a
    version number, is left out.

    Args:
        value: what was saved.
        depth: levels of dictionaries and lists to look into.
    """
    if isinstance(value, torch.nn.Module):
        return dict(value.state_dict())
    if not isinstance(value, Mapping | list | tuple) or not depth:
        return None
    inner = value
    if isinstance(value, Mapping):
        for key in STATE_KEYS:
            if state := find_state(value.get(key), depth - 1):
                return state
        own = _tensors(value)
        others = [each for each in value.values() if isinstance(each, Mapping) and each]
        whole = [each for each in others if len(_tensors(each)) == len(each)]
        if len(whole) == 1 and len(own) <= 1:
            return _tensors(whole[0])
        if own:
            return own
        # An optimiser numbers its parameters.
        inner = [each for key, each in value.items() if isinstance(key, str)]
    states = [state for each in inner if (state := find_state(each, depth - 1))]
    return states[0] if len(states) == 1 else None


def _tensors(value: Mapping[Any, Any]) -> dict[str, torch.Tensor]:
    return {
        str(name): torch.as_tensor(each)
        for name, each in value.items()
        if isinstance(each, (torch.Tensor, np.ndarray))
    }


def save_state(value: Any, path: str) -> None:
    """Writes the tensors in what a training script saved to a file of ``torch.save`` of their own.

    Raises:
        UserError: it holds no tensors by name.
    """
    state = find_state(value)
    if not state:
        raise UserError("no state_dict was found in it: save one as a dictionary of tensors.")
    torch.save({name: tensor.detach().cpu() for name, tensor in state.items()}, path)


def read_plain(path: str) -> Any:
    """What a file of ``torch.save`` holds: tensors, and objects of ``_HARMLESS`` classes."""
    with torch.serialization.safe_globals(_HARMLESS), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.load(path, map_location="cpu", weights_only=True)


def read_shards(index: str) -> dict[str, torch.Tensor]:
    """The tensors of all files that an index of Hugging Face lists."""
    from safetensors.torch import load_file

    listed = json.loads(Path(index).read_text())["weight_map"]
    tensors: dict[str, torch.Tensor] = {}
    for name in sorted(set(listed.values())):
        shard = Path(index).parent / name
        tensors |= load_file(shard) if recognise(shard) == "safetensors" else read_torch(shard)
    return tensors


def _missing_shards(index: Path) -> list[str]:
    try:
        listed = set(json.loads(index.read_bytes())["weight_map"].values())
        return sorted(name for name in listed if not (index.parent / name).is_file())
    # Of damaged JSON the command, which reads it too, tells more.
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


def _why_not_loaded(path: Path, error: str) -> str:
    found = re.search(r"GLOBAL ([\w.]+)", error)
    holds, why = f"more than tensors ({found[1] if found else ''})", "since it could run code"
    if found is None:
        if not _has_strange_protocol(path):
            return f'"{path}" is truncated or damaged, or no file of torch.save.'
        holds, why = "a pickle of another protocol than torch's", "since only pickle reads it"
    try:
        read_plain(str(path))
    except Exception:
        value = f"torch.load({str(path)!r}, map_location='cpu', weights_only=False)"
        advice = "only if you trust whoever made it, save its weights alone: "
    else:
        value = f"w.read_plain({str(path)!r})"
        advice = "save its weights alone: "
    return f'"{path}" holds {holds}, which is not loaded {why}; {advice}{_saving(value, path)}'


def _saving(value: str, path: Path, module: str = "torch") -> str:
    """A command for a shell that saves the weights in a value of Python to a file beside ``path``.

    Args:
        value: an expression.
        path: the file that cannot be loaded.
        module: what the expression needs, beside this module as ``w``.
    """
    new = str(path.with_name(f"{path.name.split('.')[0]}-weights.pth"))
    imports = "onnx.numpy_helper, onnx" if module == "onnx" else module
    code = f"import {imports}, rlcnn.weights.formats as w; w.save_state({value}, {new!r})"
    # Within double quotes a shell leaves all else as it is.
    plain = not set(code) & set('"$`\\!')
    return f'python -c "{code}"' if plain else f"python -c {shlex.quote(code)}"


def _begins_as_onnx(path: Path, start: bytes) -> bool:
    """Whether a file begins with a version of ONNX in use, and a field that comes next there.

    TensorFlow's and Core ML's files are also of protocol buffers.
    """
    known = start[:1] == b"\x08" and start[1:2] >= b"\x03" and start[2:3] in _AFTER_VERSION
    return known and path.suffix not in (".pb", ".mlmodel")


def _unpacking(path: Path, magic: bytes) -> str:
    """The command that unpacks a compressed file, whatever its name."""
    _, open_file, command, ending = _COMPRESSED[magic]
    try:
        with open_file(path) as file:
            is_tar = file.read(_FIRST_BYTES)[_TAR] == b"ustar"
    except (OSError, EOFError, zlib.error, lzma.LZMAError):
        is_tar = False
    if is_tar:
        return f"tar -xf {in_shell(path)}"
    name = path.name.removesuffix(ending)
    new = path.with_name(name if name != path.name else f"unpacked-{name}")
    return f"{command} -c {in_shell(path)} > {in_shell(new)}"


def _is_pickle(path: Path) -> bool:
    """Whether a file is one whole pickle; nothing in it is run."""
    try:
        with path.open("rb") as file:
            for _ in pickletools.genops(file):
                pass
            return not file.read(1)
    except Exception:
        return False


def _has_strange_protocol(path: Path) -> bool:
    """Whether torch's safe reader does not know the pickle protocol of a whole file."""
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            return file.read(2)[1:] not in (b"", b"\x02", b"\x03")
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        with archive.open(name) as member:
            start = member.read(2)
            return start[:1] == b"\x80" and start[1:] not in (b"", b"\x02", b"\x03")


def _check_archive(path: Path) -> None:
    """Refuses archives that are not ``torch.save``'s.

    Raises:
        UserError: it is one of TorchScript, NumPy, Keras or stable-baselines3, or damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise UserError(
            f'"{path}" is truncated or damaged: it begins as a file of torch.save or a zip archive.'
        ) from error
    members = {name.rpartition("/")[2] for name in names}
    if "constants.pkl" in members:
        command = _saving(f"torch.jit.load({str(path)!r}, 'cpu').state_dict()", path)
        raise UserError(f'"{path}" is a TorchScript file: {command} saves its weights.')
    if "archive_format" in members:
        command = _saving(f"torch.export.load({str(path)!r}).state_dict", path)
        raise UserError(f'"{path}" is a file of torch.export: {command} saves its weights.')
    if "data.pkl" in members:
        return
    if names and all(name.endswith(".npy") for name in names):
        command = _saving(f"dict(numpy.load({str(path)!r}))", path, "numpy")
        raise UserError(f'"{path}" holds NumPy arrays: {command} saves them.')
    if "policy.pth" in members:
        raise UserError(
            f'"{path}" is an agent saved by stable-baselines3: unzip {in_shell(path)} policy.pth'
            " unpacks its weights."
        )
    if "model.weights.h5" in members:
        raise UserError(
            f'"{path}" is a Keras file: save the weights as PyTorch tensors under the names of the'
            " network here."
        )
    raise UserError(f'"{path}" is a zip archive without weights of torch.save: unpack it first.')


def _of_json(path: Path, start: bytes) -> str:
    if path.name.endswith(".index.json") or b"weight_map" in start:
        if missing := _missing_shards(path):
            raise UserError(f'"{path}" lists a file that is not beside it: "{missing[0]}".')
        command = _saving(f"w.read_shards({str(path)!r})", path)
        return f'"{path}" lists several weights files: {command} makes one of them.'
    return f'"{path}" is a JSON file, not a weights file.'
