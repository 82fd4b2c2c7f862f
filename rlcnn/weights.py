"""Weights in safetensors files, which carry what is needed to build the encoder they belong to.

Nothing here unpickles: a file can hold wrong numbers, but it cannot run code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from envs.errors import UserError, nearest
from rlcnn.encoders.base import SPEC_VERSION, Encoder, EncoderSpec
from rlcnn.encoders.registry import create_encoder, list_encoders
from rlcnn.files import plain, write_atomic

# safetensors metadata maps strings to strings, so ours is JSON under one key of its own.
_KEY = "rlcnn"

# So many tensors of each kind are named in a refusal, which must stay a line.
_NAMED = 3


@dataclass(frozen=True)
class LoadReport:
    """What became of each tensor of an encoder when weights were loaded into it.

    Attributes:
        loaded: tensors taken from the file as they were.
        adapted: tensors taken from the file with a change -> what the change was.
        new: tensors the file does not hold, left as they were initialised.
    """

    loaded: tuple[str, ...]
    adapted: Mapping[str, str]
    new: tuple[str, ...]

    def __str__(self) -> str:
        """One line for people."""
        counts = f"{len(self.loaded)} loaded, {len(self.adapted)} adapted, {len(self.new)} new"
        notes = [f"{name}: {change}" for name, change in self.adapted.items()]
        notes += [f"{name}: new" for name in self.new]
        return f"tensors: {counts}" + (f" ({'; '.join(notes)})" if notes else "")


class TensorFile(NamedTuple):
    """The contents of a safetensors file: tensors by name, and what ``save_tensors`` was given."""

    tensors: dict[str, torch.Tensor]
    metadata: dict[str, Any]


def save_tensors(
    path: str | PathLike[str], tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]
) -> None:
    """Writes tensors to a safetensors file, whole or not at all.

    A tensor that stands under several names, as a features extractor shared by policy and value
    function does in a state_dict, is written once; ``read_tensors`` gives it under all of them.

    Args:
        path: the file; its directory must exist.
        tensors: of any device and memory layout.
        metadata: JSON values to keep beside them.

    Raises:
        UserError: the disk is full or the place cannot be written; an older file is untouched.
    """
    first_names: dict[tuple[Any, ...], str] = {}
    unique: dict[str, torch.Tensor] = {}
    aliases: dict[str, str] = {}
    for name, tensor in tensors.items():
        identity = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype, tensor.device)
        first = first_names.setdefault(identity, name) if tensor.numel() else name
        if first != name:
            aliases[name] = first
        else:
            # A plain copy of its own: safetensors takes neither channels_last nor views.
            cpu = tensor.detach().cpu()
            unique[name] = cpu.clone(memory_format=torch.contiguous_format)
    header = {"metadata": plain(dict(metadata)), "aliases": aliases}
    write_atomic(path, save(unique, {"format": "pt", _KEY: json.dumps(header)}))


def read_tensors(path: str | PathLike[str]) -> TensorFile:
    """Reads a safetensors file, ours or any other (whose metadata is then empty).

    Raises:
        UserError: the file is missing, truncated or no safetensors file.
    """
    path = Path(path)
    if not path.is_file():
        siblings = [p.name for p in path.parent.glob("*.safetensors")]
        what = "is a directory, not a weights file" if path.is_dir() else "does not exist"
        raise UserError(f'"{path}" {what}.{nearest(path.name, siblings)}')
    try:
        with safe_open(path, framework="pt") as file:
            stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            header = json.loads((file.metadata() or {}).get(_KEY, "{}"))
            for name, first in header.get("aliases", {}).items():
                stored[name] = stored[first]
            return TensorFile(stored, dict(header.get("metadata", {})))
    except OSError as error:
        raise UserError(f'cannot read "{path}": {error.strerror or error}.') from error
    except (SafetensorError, ValueError, AttributeError, KeyError, TypeError) as error:
        detail = " ".join(str(error).split())
        raise UserError(
            f'"{path}" is not a whole safetensors file: truncated, damaged or of another '
            f"format ({detail})."
        ) from error


def save_encoder(
    encoder: Encoder, path: str | PathLike[str], metadata: Mapping[str, Any] | None = None
) -> None:
    """Writes an encoder's weights with its spec, so that ``load_encoder`` needs nothing else.

    Args:
        encoder: on any device.
        path: usually ending in ``.safetensors``; its directory must exist.
        metadata: JSON values to keep beside the weights, such as where they come from.

    Raises:
        UserError: the disk is full or the place cannot be written; an older file is untouched.
    """
    described = {"encoder": encoder.spec(), "about": dict(metadata or {})}
    save_tensors(path, encoder.state_dict(), described)


def load_encoder(path: str | PathLike[str]) -> Encoder:
    """Builds the encoder a file describes and loads its weights, on the CPU.

    Args:
        path: a file written by ``save_encoder``.

    Raises:
        UserError: a missing, truncated or foreign file, an encoder not known here, or weights
            that do not fit it.
    """
    file = read_tensors(path)
    spec = _spec(file, path)
    if spec is None:
        raise UserError(
            f'"{path}" does not say which encoder it belongs to: it was not written by '
            "save_encoder. Create the encoder and use load_into."
        )
    try:
        encoder = create_encoder(spec["name"], spec["observation_shape"], **spec["options"])
    except (UserError, TypeError) as error:
        raise UserError(f'"{path}" describes an encoder that cannot be built: {error}') from error
    _fill(encoder, file.tensors, path)
    return encoder


def load_into(encoder: Encoder, path: str | PathLike[str]) -> LoadReport:
    """Loads weights into an encoder; it is untouched unless every tensor fits.

    Args:
        encoder: on any device.
        path: a file written by ``save_encoder``, or any safetensors file with the same tensors.
            It may come from another observation size where the shapes agree nevertheless, as
            they do with mean pooling.

    Raises:
        UserError: a missing, truncated or foreign file; weights of another encoder or other
            options (named); tensors that are missing, left over or of another shape.
    """
    file = read_tensors(path)
    spec = _spec(file, path)
    own = encoder.spec()
    if spec and (spec["name"], spec["options"]) != (own["name"], own["options"]):
        raise UserError(f'"{path}" holds weights of {_described(spec)}, not of {_described(own)}.')
    return _fill(encoder, file.tensors, path)


def read_about(path: str | PathLike[str]) -> dict[str, Any]:
    """The metadata ``save_encoder`` was given; empty for a foreign file.

    Raises:
        UserError: the file is missing, truncated or no safetensors file.
    """
    return read_tensors(path).metadata.get("about", {})


def _spec(file: TensorFile, path: str | PathLike[str]) -> EncoderSpec | None:
    spec = file.metadata.get("encoder")
    if spec is None:
        return None
    kinds = {"version": int, "name": str, "observation_shape": list, "options": dict}
    if not isinstance(spec, dict) or not all(isinstance(spec.get(k), v) for k, v in kinds.items()):
        raise UserError(f'"{path}" describes its encoder in a way that cannot be read: {spec}.')
    if spec["version"] != SPEC_VERSION:
        raise UserError(
            f'"{path}" is of format version {spec["version"]}; '
            f"this release of rlcnn reads version {SPEC_VERSION}."
        )
    return cast(EncoderSpec, spec)


def _described(spec: EncoderSpec) -> str:
    options = ", ".join(f"{key}={value!r}" for key, value in spec["options"].items())
    return f'encoder "{spec["name"]}"' + (f" ({options})" if options else "")


def _fill(
    encoder: Encoder, tensors: Mapping[str, torch.Tensor], path: str | PathLike[str]
) -> LoadReport:
    own = encoder.state_dict()
    problems = _misfits(own, tensors)
    if problems:
        raise UserError(
            f'"{path}" does not fit encoder "{encoder.name}" for observations '
            f"{encoder.observation_shape}: {'; '.join(problems)}."
            f"{_nearest_architecture(encoder, tensors)}"
        )
    adapted = {
        name: f"cast from {tensors[name].dtype} to {own[name].dtype}"
        for name in own
        if tensors[name].dtype != own[name].dtype
    }
    encoder.load_state_dict(dict(tensors))
    loaded = tuple(name for name in own if name not in adapted)
    return LoadReport(loaded=loaded, adapted=adapted, new=())


def _misfits(own: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> list[str]:
    """What speaks against loading ``other`` where ``own`` is, in words; nothing if it fits."""
    reshaped = [
        f"{name} {tuple(other[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in other and other[name].shape != own[name].shape
    ]
    kinds = {
        "missing": [name for name in own if name not in other],
        "left over": [name for name in other if name not in own],
        "of another shape": reshaped,
    }
    problems = []
    for kind, names in kinds.items():
        if names:
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            problems.append(f"{kind}: {', '.join(names[:_NAMED])}{more}")
    return problems


def _nearest_architecture(encoder: Encoder, tensors: Mapping[str, torch.Tensor]) -> str:
    """A hint at the registered encoder that ``tensors`` fit entirely or best, or nothing."""
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    overlaps: dict[str, float] = {}
    for name in list_encoders():
        try:
            # Shapes are all that is wanted: on the meta device nothing is initialised.
            with torch.device("meta"):
                candidate = create_encoder(name, encoder.observation_shape).state_dict()
        except UserError:
            continue
        fitting = sum(shapes.get(key) == tensor.shape for key, tensor in candidate.items())
        overlaps[name] = fitting / max(len(shapes), len(candidate))
    best = max(overlaps, key=lambda name: overlaps[name], default=encoder.name)
    if best == encoder.name or overlaps[best] < 0.5:
        return ""
    return f' It {"fits" if overlaps[best] == 1 else "is nearest to"} encoder "{best}".'
