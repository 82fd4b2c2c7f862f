"""Functions for the commands in error messages, which convert files into loadable ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from envs.errors import UserError
from rlcnn.weights.formats import recognise
from rlcnn.weights.states import find_state, read_plain, read_torch

__all__ = ["read_plain", "read_shards", "save_state"]


def save_state(value: Any, path: str) -> None:
    """Writes the tensors in what a training script saved to a file of ``torch.save``.

    A UserError says that there are no tensors by name.
    """
    state = find_state(value)
    if not state:
        raise UserError("no state_dict was found in it: save one as a dictionary of tensors.")
    torch.save({name: tensor.detach().cpu() for name, tensor in state.items()}, path)


def read_shards(index: str) -> dict[str, torch.Tensor]:
    """Reads the tensors of all files that an index of Hugging Face lists."""
    from safetensors.torch import load_file

    listed = json.loads(Path(index).read_text())["weight_map"]
    tensors: dict[str, torch.Tensor] = {}
    for name in sorted(set(listed.values())):
        shard = Path(index).parent / name
        tensors |= load_file(shard) if recognise(shard) == "safetensors" else read_torch(shard)
    return tensors
