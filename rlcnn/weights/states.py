"""State dicts in files of ``torch.save``, read without running code of the file."""

from __future__ import annotations

import argparse
import datetime
import pathlib
import re
import shlex
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
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
"""Keys of the weights in files of training scripts; the first one that holds tensors counts."""

_HARMLESS: list[Any] = [
    argparse.Namespace,
    pathlib.PosixPath,
    pathlib.PurePosixPath,
    datetime.datetime,
    datetime.date,
    datetime.timedelta,
]
"""Classes in files of training scripts whose construction runs no code of the file."""


def read_torch(path: Path) -> dict[str, torch.Tensor]:
    """Reads the tensors of a file of ``torch.save`` with ``weights_only=True``.

    A UserError refuses a damaged file, and one with more than tensors or without
    :func:`find_state`.
    """
    try:
        with warnings.catch_warnings():
            # torch warns of a strange protocol, which is refused anyway.
            warnings.simplefilter("ignore")
            value = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f'cannot read "{path}": {error.strerror or error}.') from error
    except Exception as error:
        # torch's own message advises to unpickle the file, without a warning.
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
    """Finds the tensors by name in what a training script saved; None if there are none.

    They come from the first key of ``STATE_KEYS`` that has some, or the only other dictionary that
    consists of tensors, or the top level, or the only nested dictionary or list that has some.
    ``depth`` levels are searched. Arrays become tensors; other values, such as a version number,
    are left out.
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
        # Integer keys are those of an optimiser's parameters.
        inner = [each for key, each in value.items() if isinstance(key, str)]
    states = [state for each in inner if (state := find_state(each, depth - 1))]
    return states[0] if len(states) == 1 else None


def _tensors(value: Mapping[Any, Any]) -> dict[str, torch.Tensor]:
    return {
        str(name): torch.as_tensor(each)
        for name, each in value.items()
        if isinstance(each, (torch.Tensor, np.ndarray))
    }


def read_plain(path: str) -> Any:
    """Reads a file of ``torch.save`` with tensors and objects of ``_HARMLESS`` classes."""
    with torch.serialization.safe_globals(_HARMLESS), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.load(path, map_location="cpu", weights_only=True)


def _why_not_loaded(path: Path, error: str) -> str:
    found = re.search(r"GLOBAL ([\w.]+)", error)
    holds, why = f"more than tensors ({found[1] if found else ''})", "since it could run code"
    if found is None:
        if not _has_strange_protocol(path):
            return f'"{path}" is truncated or damaged, or not a file of torch.save.'
        holds, why = "a pickle of another protocol than torch's", "since only pickle reads it"
    try:
        read_plain(str(path))
    except Exception:
        value = f"torch.load({str(path)!r}, map_location='cpu', weights_only=False)"
        advice = "only if you trust whoever made it, save its weights alone: "
    else:
        value = f"w.read_plain({str(path)!r})"
        advice = "save its weights alone: "
    return (
        f'"{path}" holds {holds}, which is not loaded {why}; {advice}{saving_command(value, path)}'
    )


def _has_strange_protocol(path: Path) -> bool:
    """Whether torch's safe reader does not support the pickle protocol of a whole file."""
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            return file.read(2)[1:] not in (b"", b"\x02", b"\x03")
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        with archive.open(name) as member:
            start = member.read(2)
            return start[:1] == b"\x80" and start[1:] not in (b"", b"\x02", b"\x03")


def saving_command(value: str, path: Path, module: str = "torch") -> str:
    """A shell command that saves the weights in a Python value to a file beside ``path``.

    In the expression ``value``, ``w`` is :mod:`rlcnn.weights.conversion`; it may need ``module``.
    """
    new = str(path.with_name(f"{path.name.split('.')[0]}-weights.pth"))
    imports = "onnx.numpy_helper, onnx" if module == "onnx" else module
    code = f"import {imports}, rlcnn.weights.conversion as w; w.save_state({value}, {new!r})"
    # In double quotes a shell interprets only these characters.
    plain = not set(code) & set('"$`\\!')
    return f'python -c "{code}"' if plain else f"python -c {shlex.quote(code)}"
