"""Recognises the format of a weights file by its first bytes, whatever its name.

Formats that cannot be loaded are refused with a command that converts the file.
"""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import pickletools
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NoReturn

from envs.errors import UserError, in_shell
from rlcnn.weights.states import saving_command

# Number of bytes that recognise a file.
_FIRST_BYTES = 512

# The limit of safetensors itself.
_LONGEST_HEADER = 100_000_000

# First bytes of a file -> its format, and how to convert it.
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

# First bytes of a compressed file -> program, Python's function, command to unpack, and suffix.
_COMPRESSED: dict[bytes, tuple[str, Callable[..., Any], str, str]] = {
    b"\x1f\x8b": ("gzip", gzip.open, "gunzip", ".gz"),
    b"BZh": ("bzip2", bz2.open, "bunzip2", ".bz2"),
    b"\xfd7zXZ\x00": ("xz", lzma.open, "unxz", ".xz"),
}

# A number near the start of old files of torch.
_TORCH_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."

# Fields after the version of an ONNX file: producer, domain, their versions, and graph.
_AFTER_VERSION = tuple(bytes([tag]) for tag in b"\x12\x1a\x22\x3a")

# Position of the magic bytes of a tar archive.
_TAR = slice(257, 262)


def recognise(path: Path) -> Literal["safetensors", "torch"]:
    """The format of a file that can be loaded.

    A UserError names another format, with a command that converts the file, or says that it is
    unknown.
    """
    try:
        with path.open("rb") as file:
            start = file.read(_FIRST_BYTES)
    except OSError as error:
        raise UserError(f'cannot read "{path}": {error.strerror or error}.') from error
    # Checked first: the length before the header may look like the first bytes of another format.
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
                + saving_command(f"pickle.load(open({str(path)!r}, 'rb'))", path, "pickle")
            )
        return "torch"
    text = start.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise UserError(f'"{path}" is a web page, not a weights file: download the file itself.')
    if text.startswith(b"{"):
        _refuse_json(path, start)
    # Files of TensorFlow and Core ML are protocol buffers, too.
    newer = start[:1] == b"\x08" and start[1:2] >= b"\x03" and start[2:3] in _AFTER_VERSION
    if path.suffix == ".onnx" or (newer and path.suffix not in (".pb", ".mlmodel")):
        tensors = (
            f"{{t.name: onnx.numpy_helper.to_array(t) for t in onnx.load({str(path)!r})"
            ".graph.initializer}"
        )
        raise UserError(
            f'"{path}" is an ONNX file: {saving_command(tensors, path, "onnx")} saves its tensors;'
            " their names must be those of the network here."
        )
    state = "empty" if not start else "truncated, damaged or of another format"
    raise UserError(
        f'"{path}" is not a whole safetensors file, nor one of torch.save: it is {state}.'
    )


def _unpacking(path: Path, magic: bytes) -> str:
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
    """Whether a file is one whole pickle; none of its code runs."""
    try:
        with path.open("rb") as file:
            for _ in pickletools.genops(file):
                pass
            return not file.read(1)
    except Exception:
        return False


def _check_archive(path: Path) -> None:
    """Refuses archives of TorchScript, NumPy, Keras or stable-baselines3, and damaged ones."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise UserError(
            f'"{path}" is truncated or damaged: it begins as a file of torch.save or a zip archive.'
        ) from error
    members = {name.rpartition("/")[2] for name in names}
    if "constants.pkl" in members:
        command = saving_command(f"torch.jit.load({str(path)!r}, 'cpu').state_dict()", path)
        raise UserError(f'"{path}" is a TorchScript file: {command} saves its weights.')
    if "archive_format" in members:
        command = saving_command(f"torch.export.load({str(path)!r}).state_dict", path)
        raise UserError(f'"{path}" is a file of torch.export: {command} saves its weights.')
    if "data.pkl" in members:
        return
    if names and all(name.endswith(".npy") for name in names):
        command = saving_command(f"dict(numpy.load({str(path)!r}))", path, "numpy")
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


def _refuse_json(path: Path, start: bytes) -> NoReturn:
    if not path.name.endswith(".index.json") and b"weight_map" not in start:
        raise UserError(f'"{path}" is a JSON file, not a weights file.')
    missing: list[str] = []
    # For damaged JSON, the command itself reports more.
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        listed = set(json.loads(path.read_bytes())["weight_map"].values())
        missing = sorted(name for name in listed if not (path.parent / name).is_file())
    if missing:
        raise UserError(f'"{path}" lists a file that is not beside it: "{missing[0]}".')
    command = saving_command(f"w.read_shards({str(path)!r})", path)
    raise UserError(f'"{path}" lists several weights files: {command} makes one of them.')
