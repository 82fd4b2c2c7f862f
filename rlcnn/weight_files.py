"""What kind of file weights are in, told by its first bytes, and how torch's files are read.

Nothing here unpickles what could run code.
"""

from __future__ import annotations

import re
import warnings
import zipfile
from pathlib import Path
from typing import Any, Literal

import torch

from envs.errors import UserError

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
    b"\x1f\x8b": ("compressed by gzip", "unpack it first: gunzip {path!r} or tar -xzf {path!r}"),
    b"version https://git-lfs": (
        "a pointer of Git LFS, not the weights themselves",
        "get them first: git lfs pull",
    ),
}

_RESAVE = 'python -c "import torch; {code}"'


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
    for magic, (kind, advice) in _OTHERS.items():
        if start.startswith(magic):
            raise UserError(f'"{path}" is {kind}: {advice.format(**names)}.')
    if start.startswith(b"PK\x03\x04"):
        _check_archive(path, names["new"])
        return "torch"
    if start.startswith(b"\x80"):
        return "torch"
    text = start.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise UserError(f'"{path}" is a web page, not a weights file: download the file itself.')
    if text.startswith(b"{"):
        raise UserError(_of_json(path, start))
    if path.suffix == ".onnx" or (start[:1] == b"\x08" and start[2:3] in b"\x12\x1a\x22\x3a"):
        code = (
            "import onnx; from onnx.numpy_helper import to_array; from safetensors.numpy import "
            f"save_file; save_file({{t.name: to_array(t) for t in onnx.load({str(path)!r})"
            f".graph.initializer}}, {names['new']!r})"
        )
        raise UserError(
            f'"{path}" is an ONNX file: python -c "{code}" saves its tensors; their names must be'
            " those of the network here."
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
    outer = value
    while isinstance(value, dict) and not _is_state(value):
        inner = [value[key] for key in STATE_KEYS if isinstance(value.get(key), dict)]
        if not inner:
            break
        value = inner[0]
    if not isinstance(value, dict) or not _is_state(value):
        found = [str(key) for key in outer][:8] if isinstance(outer, dict) else []
        holds = f"; it holds {', '.join(found)}" if found else ""
        raise UserError(
            f'"{path}" holds no state_dict, a dictionary of tensors by name, itself or under one of'
            f" {', '.join(STATE_KEYS)}{holds}."
        )
    return {str(name): tensor for name, tensor in value.items()}


def _is_state(value: dict[Any, Any]) -> bool:
    return bool(value) and all(map(torch.is_tensor, value.values()))


def _why_not_loaded(path: Path, error: str) -> str:
    found = re.search(r"GLOBAL ([\w.]+)", error)
    if found is None:
        return f'"{path}" is truncated or damaged, or no file of torch.save.'
    new = str(path.with_name(f"{path.name.split('.')[0]}-weights.pth"))
    keep = f"torch.save({{k: v for k, v in c.items() if isinstance(v, dict)}}, {new!r})"
    if found[1] == "argparse.Namespace":
        code = (
            "import argparse; torch.serialization.add_safe_globals([argparse.Namespace]); "
            f"c = torch.load({str(path)!r}, weights_only=True); {keep}"
        )
        advice = f"save its weights alone: {_RESAVE.format(code=code)}"
    else:
        code = (
            f"c = torch.load({str(path)!r}, weights_only=False); "
            f"torch.save(c.state_dict() if hasattr(c, 'state_dict') else "
            f"{{k: v for k, v in c.items() if isinstance(v, (dict, torch.Tensor))}}, {new!r})"
        )
        advice = (
            "only if you trust whoever made it, save its weights alone: "
            f"{_RESAVE.format(code=code)}"
        )
    return (
        f'"{path}" holds more than tensors ({found[1]}), which is not loaded since it could run'
        f" code; {advice}."
    )


def _check_archive(path: Path, new: str) -> None:
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
        code = f"torch.save(torch.jit.load({str(path)!r}, 'cpu').state_dict(), {_state(path)!r})"
        raise UserError(
            f'"{path}" is a TorchScript file: {_RESAVE.format(code=code)} saves its weights.'
        )
    if "data.pkl" in members:
        return
    if names and all(name.endswith(".npy") for name in names):
        code = (
            "import numpy; from safetensors.numpy import save_file; "
            f"save_file(dict(numpy.load({str(path)!r})), {new!r})"
        )
        raise UserError(f'"{path}" holds NumPy arrays: python -c "{code}" saves them.')
    if "policy.pth" in members:
        raise UserError(
            f'"{path}" is an agent saved by stable-baselines3: unzip {str(path)!r} policy.pth'
            " unpacks its weights."
        )
    if "model.weights.h5" in members:
        raise UserError(
            f'"{path}" is a Keras file: save the weights as PyTorch tensors under the names of the'
            " network here."
        )
    raise UserError(f'"{path}" is a zip archive without weights of torch.save: unpack it first.')


def _state(path: Path) -> str:
    return str(path.with_name(f"{path.stem}-weights.pth"))


def _of_json(path: Path, start: bytes) -> str:
    if path.name.endswith(".index.json") or b"weight_map" in start:
        folder = str(path.parent)
        code = (
            "from pathlib import Path; from safetensors.torch import load_file, save_file; "
            f"save_file({{k: v for f in Path({folder!r}).glob('*-of-*.safetensors') "
            f"for k, v in load_file(f).items()}}, {str(path.parent / 'merged.safetensors')!r})"
        )
        return f'"{path}" lists several weights files: python -c "{code}" makes one of them.'
    return f'"{path}" is a JSON file, not a weights file.'
