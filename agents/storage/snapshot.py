"""A replay in a safetensors file: written whole or not at all, read only where it fits."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from envs.errors import UserError

_COPIED_ROWS = 1024


def write_snapshot(
    path: str | Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]
) -> None:
    """Writes tensors and metadata under another name first; a UserError where it cannot."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file(tensors, temporary, metadata=metadata)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise UserError(f"cannot write the replay snapshot {path}: {error}") from error


@contextmanager
def reading_snapshot(
    path: str | Path, geometry: Mapping[str, str]
) -> Iterator[tuple[Any, dict[str, str]]]:
    """Opens a snapshot: the file's tensors and its metadata, which must contain ``geometry``.

    A UserError refuses a file that is missing or broken, or of another geometry.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            for key, expected in geometry.items():
                if metadata.get(key) != expected:
                    raise UserError(
                        f"the replay snapshot {path} does not fit: its {key} is"
                        f" {metadata.get(key, 'missing')}, this replay's {expected}"
                    )
            yield file, metadata
    except (OSError, SafetensorError, KeyError) as error:
        if not _is_safetensors(path):
            raise UserError(
                f"{path} was not written by save_replay_buffer of agents.DQN; replays of"
                " stable-baselines3's own DQN are pickles and cannot be read"
            ) from error
        raise UserError(f"cannot read the replay snapshot {path}: {error}") from error


def copy_rows(source: Any, destination: torch.Tensor) -> None:
    """Copies a slice of a safetensors file into the first rows of a tensor, a few at a time."""
    for row in range(0, source.get_shape()[0], _COPIED_ROWS):
        rows = source[row : row + _COPIED_ROWS]
        destination[row : row + len(rows)].copy_(rows)


def restore_generator(generator: torch.Generator, state: torch.Tensor) -> None:
    """Sets a generator's state; a state from another kind of device becomes a seed."""
    if state.shape == generator.get_state().shape:
        generator.set_state(state)
    else:
        generator.manual_seed(int.from_bytes(state[:8].tolist(), "little") >> 1)


def _is_safetensors(path: str | Path) -> bool:
    """Whether a file begins as safetensors do, with a length and a dict; True if it is missing."""
    if not os.path.isfile(path):
        return True
    with open(path, "rb") as file:
        return file.read(9)[8:] == b"{"
