"""torch's states on disk: its optimisers' and its random generators', nothing pickled."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from envs.errors import UserError
from rlcnn.runs.files import disk_errors


def save_torch(value: Any, path: Path) -> None:
    """Writes tensors, numbers and strings in lists and dictionaries.

    Raises:
        UserError: the disk is full or the place cannot be written.
    """
    with disk_errors(path), open(path, "wb") as file:
        torch.save(value, file)


def load_torch(path: Path) -> Any:
    """What :func:`save_torch` wrote, with its tensors on the CPU.

    Raises:
        UserError: the file is missing or damaged, or holds what could run code.
    """
    try:
        with warnings.catch_warnings():
            # Of a strange protocol, where it is about to be refused anyway.
            warnings.simplefilter("ignore")
            # On the host: where it was trained need not exist here.
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f'"{path}" does not exist') from error
    except Exception as error:
        # Torch would go on to advise to load it with pickle: never that.
        raise UserError(
            f'"{path}" is damaged, or holds other things than tensors and numbers'
        ) from error


def torch_rng(device: torch.device) -> dict[str, torch.Tensor]:
    """The states of torch's generators of the CPU and of ``device``."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def restore_torch_rng(device: torch.device, states: Mapping[str, torch.Tensor]) -> None:
    """Brings torch's generators to what :func:`torch_rng` gave."""
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
