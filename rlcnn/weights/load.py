"""Weights in files: safetensors that know the encoder they belong to, and the files of others.

Nothing here unpickles what could run code: a file can hold wrong numbers, and no more.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from envs.errors import UserError, nearest
from rlcnn.encoders.base import SPEC_VERSION, Encoder, EncoderSpec
from rlcnn.encoders.registry import create_encoder
from rlcnn.runs.directory import RunDirectory
from rlcnn.runs.files import plain, write_atomic
from rlcnn.weights.formats import read_torch, recognise
from rlcnn.weights.origin import Origin
from rlcnn.weights.report import LoadReport, fill, without_prefix

__all__ = [
    "BEST",
    "HEAD",
    "LAST",
    "LoadReport",
    "TensorFile",
    "load_encoder",
    "load_into",
    "read_about",
    "read_tensors",
    "save_encoder",
    "save_tensors",
    "weights_file",
]

# safetensors metadata maps strings to strings, so ours is JSON under one key of its own.
_KEY = "rlcnn"

HEAD = "head."
"""What the names of a classifier's own tensors begin with, beside those of its encoder."""

BEST, LAST = "best.safetensors", "last.safetensors"
"""What a training on labelled images keeps in its run's directory; the best is taken first."""

# Where a folder of Hugging Face keeps its weights, the better first.
_HUGGING_FACE = (
    "model.safetensors",
    "pytorch_model.bin",
    "model.safetensors.index.json",
    "pytorch_model.bin.index.json",
)

# How files of weights end.
_WEIGHTS = frozenset(
    ".safetensors .pth .pt .bin .ckpt .th .tar .npz .onnx .h5 .keras .msgpack".split()  # noqa: SIM905
)

# An agent's encoder in the state_dict of its policy: PPO's, and DQN's online network.
_AGENTS_ENCODER = re.compile(r"(q_net\.)?features_extractor\.encoder\.")


class TensorFile(NamedTuple):
    """The contents of a weights file: tensors by name, and what ``save_tensors`` was given."""

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


def read_tensors(path: str | PathLike[str], *, own: bool = False) -> TensorFile:
    """Reads a safetensors file, ours or any other (whose metadata is then empty).

    What ``torch.save`` wrote is read with ``weights_only=True``. Which of both a file is, its first
    bytes tell, whatever its name.

    Args:
        path: the file.
        own: whether :func:`save_tensors` wrote it: another format is damage then, for which no
            command is given.

    Raises:
        UserError: the file is missing, truncated or of another format, or holds more than tensors.
            The line says how to make a file that loads, where that is known.
    """
    path = Path(path)
    # os.path's finds nothing under a name that is too long, where pathlib's raises.
    if not os.path.isfile(path):
        siblings = [p.name for p in path.parent.glob("*.safetensors")]
        what = "is a directory, not a weights file" if os.path.isdir(path) else "does not exist"
        if os.path.exists(path) and not os.path.isdir(path):
            what = "is not a regular file"
        # As torchvision names its weights.
        published = re.fullmatch(
            r"DEFAULT|IMAGENET1K_V\d|pretrained|true", str(path), re.IGNORECASE
        )
        hint = ' Did you mean "imagenet"?' if published else nearest(path.name, siblings)
        # Of two slashes a path keeps one.
        if re.match(r"\w{2,}:/", str(path)):
            hint = " Download it first, and give the file."
        raise UserError(f'"{path}" {what}.{hint}')
    if own and recognise(path) != "safetensors":
        raise UserError(f'"{path}" is damaged: it is no safetensors file.')
    if recognise(path) == "torch":
        return TensorFile(read_torch(path), {})
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
        path: a file written by ``save_encoder``, or a classifier's.

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
    fill(encoder, _encoder_tensors(file)[0], f'"{path}"')
    return encoder


def load_into(encoder: Encoder, weights: str | PathLike[str]) -> LoadReport:
    """Loads weights into an encoder; it is untouched unless every tensor is accounted for.

    Args:
        encoder: on any device.
        weights: "imagenet", for networks of torchvision and timm, which download theirs; or

            - a file of ``save_encoder``, or any file of safetensors or ``torch.save`` with the same
              tensors, under this encoder's names or those of the published network, which may have
              a prefix in common, such as ``module.``. It may come from another observation size
              where the shapes agree nevertheless, as they do with mean pooling;
            - a folder of Hugging Face with a ``model.safetensors`` or ``pytorch_model.bin``;
            - the directory of an agent's run, whose newest whole checkpoint is read, or the policy
              file of a checkpoint; that of a run on labelled images, whose best weights are read.

            The trunk of a published network loads whatever the options of the encoder it comes
            from; what comes after the trunk only from the same encoder.

    Returns:
        What became of every tensor, and where the weights came from.

    Raises:
        UserError: a missing, truncated or foreign file; one that holds more than tensors; weights
            of another encoder or other options (named); tensors that are missing, left over or of
            another shape; values that are not finite; no ImageNet weights, or no network to get
            them by.
    """
    if weights == "imagenet":
        tensors = dict(encoder.imagenet_weights())
        report = fill(encoder, tensors, f'the ImageNet weights of "{encoder.name}"')
        origin = Origin("imagenet", encoder.imagenet_source(), about={"data": "ImageNet"})
        return replace(report, origin=origin)
    path = weights_file(Path(weights))
    source = f'"{path}"'
    file = read_tensors(path)
    spec = _spec(file, path)
    own = encoder.spec()
    tensors, others = _encoder_tensors(file)
    if spec and spec != own:
        if encoder.shares_trunk(spec):
            after = [name for name in tensors if not name.startswith("trunk.")]
            others += after
            tensors = {name: tensors[name] for name in tensors if name not in after}
        elif (spec["name"], spec["options"]) != (own["name"], own["options"]):
            raise UserError(
                f"{source} holds weights of {_described(spec)}, not of {_described(own)}."
            )
    prefix = ""
    if spec is None and not others:
        tensors, prefix, others = without_prefix(encoder, tensors, source)
    report = fill(encoder, tensors, source)
    origin = Origin.of_file(str(weights), path, file.metadata)
    return replace(report, unused=(*report.unused, *others), origin=origin, prefix=prefix)


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


def weights_file(path: Path) -> Path:
    """The file that weights are read from: itself, or what a run has to offer.

    A pretraining's is its best classifier, an agent's the policy of its newest checkpoint.

    Args:
        path: a file, which need not exist, the directory of a run or a folder of Hugging Face.

    Raises:
        UserError: another directory, or that of a run without a whole checkpoint.
    """
    if not os.path.isdir(path):
        return path
    is_run = (path / "checkpoints").is_dir()
    kept = (BEST, LAST) if is_run else (*_HUGGING_FACE, BEST, LAST)
    for name in kept:
        if (path / name).is_file():
            return path / name
    if not is_run:
        files = [p for pattern in ("*", "snapshots/*/*") for p in sorted(path.glob(pattern))]
        inside = [p for p in files if p.suffix in _WEIGHTS and p.is_file()]
        found = f'; give one of its files, such as "{inside[0]}"' if inside else ""
        raise UserError(
            f'"{path}" is a directory, but no run, and no folder with a {_HUGGING_FACE[0]}'
            f" or {_HUGGING_FACE[1]}{found}."
        )
    newest, broken = RunDirectory.open(path).latest_whole()
    if newest is None:
        found = f": {broken[0].path}: {broken[0].reason}" if broken else " yet"
        raise UserError(f'run "{path}" has no whole checkpoint to take weights from{found}.')
    return newest / "policy.safetensors"


def _encoder_tensors(file: TensorFile) -> tuple[dict[str, torch.Tensor], list[str]]:
    """The tensors of an agent's or a classifier's encoder by the encoder's names, and the names of
    all others.

    The tensors of a file that is neither's are an encoder's.
    """
    tensors = file.tensors
    if "tasks" in file.metadata:
        heads = [name for name in tensors if name.startswith(HEAD)]
        return {name: tensors[name] for name in tensors if name not in heads}, heads
    found = {name: match.end() for name in tensors if (match := _AGENTS_ENCODER.match(name))}
    if not found:
        return dict(tensors), []
    encoder = {name[start:]: tensors[name] for name, start in found.items()}
    # A policy has one encoder under several names.
    held = {id(tensor) for tensor in encoder.values()}
    return encoder, [name for name, tensor in tensors.items() if id(tensor) not in held]


def read_spec(weights: str | PathLike[str]) -> EncoderSpec | None:
    """What a weights file, or the newest one of a run, says of the encoder it belongs to.

    Returns:
        None for a file that does not say it, as those of others.

    Raises:
        UserError: it is missing, truncated or of another format.
    """
    path = weights_file(Path(weights))
    return _spec(read_tensors(path), path)
