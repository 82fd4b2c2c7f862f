"""States of torch's optimisers and random generators on disk, without pickles."""

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
    """Reads a file of :func:`save_torch`, with its tensors on the CPU.

    Raises:
        UserError: the file is missing or damaged, or could run code.
    """
    try:
        with warnings.catch_warnings():
            # A warning of an unknown pickle protocol, before the refusal.
            warnings.simplefilter("ignore")
            # The device that the tensors were on need not exist here.
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f'"{path}" does not exist') from error
    except Exception as error:
        # Torch's own message advises to load it with pickle.
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
    """Restores the states that :func:`torch_rng` returned."""
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
