"""Saves and loads weights: safetensors that describe their encoder, and files of other programs.

No code of a file runs: the worst file holds wrong numbers.
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
from rlcnn.encoders.registry import create_encoder, encoder_options
from rlcnn.runs.directory import RunDirectory
from rlcnn.runs.files import plain, write_atomic
from rlcnn.weights.formats import recognise
from rlcnn.weights.origin import Origin
from rlcnn.weights.placement import fill, without_prefix
from rlcnn.weights.report import LoadReport
from rlcnn.weights.states import read_torch

# Metadata of safetensors maps strings to strings; ours is JSON under one key.
_KEY = "rlcnn"

HEAD = "head."
"""Prefix of the names of a classifier's own tensors; the others belong to its encoder."""

BEST, LAST = "best.safetensors", "last.safetensors"
"""Weights in the directory of a run on labelled images; the best ones are preferred."""

# Weights files in a folder of Hugging Face, preferred ones first.
_HUGGING_FACE = (
    "model.safetensors",
    "pytorch_model.bin",
    "model.safetensors.index.json",
    "pytorch_model.bin.index.json",
)

# Suffixes of weights files.
_WEIGHTS = frozenset(
    ".safetensors .pth .pt .bin .ckpt .th .tar .npz .onnx .h5 .keras .msgpack".split()  # noqa: SIM905
)

# The encoder in the state_dict of a policy: PPO's, and DQN's online network.
_AGENTS_ENCODER = re.compile(r"(q_net\.)?features_extractor\.encoder\.")


class TensorFile(NamedTuple):
    """Contents of a weights file."""

    tensors: dict[str, torch.Tensor]
    metadata: dict[str, Any]  # of ``save_tensors``


def save_tensors(
    path: str | PathLike[str], tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]
) -> None:
    """Writes tensors of any device and layout with JSON ``metadata`` to a safetensors file.

    A tensor with several names, such as those of a shared features extractor in a state_dict, is
    written once; ``read_tensors`` returns it under all names. The directory must exist.

    Raises:
        UserError: the disk is full or the file cannot be written; an older file does not change.
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
            # A contiguous copy: safetensors supports neither channels_last nor views.
            cpu = tensor.detach().cpu()
            unique[name] = cpu.clone(memory_format=torch.contiguous_format)
    header = {"metadata": plain(dict(metadata)), "aliases": aliases}
    write_atomic(path, save(unique, {"format": "pt", _KEY: json.dumps(header)}))


def read_tensors(path: str | PathLike[str], *, own: bool = False) -> TensorFile:
    """Reads a safetensors file, or a file of ``torch.save`` with ``weights_only=True``.

    The first bytes decide the format, not the name. Files of other programs have no metadata. With
    ``own``, :func:`save_tensors` wrote the file, so that another format means damage.

    Raises:
        UserError: the file is missing, truncated or of another format, or holds more than tensors.
            If possible the message has a command that converts the file.
    """
    path = Path(path)
    # For a name that is too long, pathlib raises an error and os.path does not.
    if not os.path.isfile(path):
        siblings = [p.name for p in path.parent.glob("*.safetensors")]
        what = "is a directory, not a weights file" if os.path.isdir(path) else "does not exist"
        if os.path.exists(path) and not os.path.isdir(path):
            what = "is not a regular file"
        # torchvision's names of its weights.
        published = re.fullmatch(
            r"DEFAULT|IMAGENET1K_V\d|pretrained|true", str(path), re.IGNORECASE
        )
        hint = ' Did you mean "imagenet"?' if published else nearest(path.name, siblings)
        # An address; a Path has only one of its slashes.
        if re.match(r"\w{2,}:/", str(path)):
            hint = " Download it first, and give the file."
        raise UserError(f'"{path}" {what}.{hint}')
    if own and recognise(path) != "safetensors":
        raise UserError(f'"{path}" is damaged: it is not a safetensors file.')
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
    """Writes an encoder's weights with its spec, and JSON ``metadata`` such as their origin.

    Errors are those of :func:`save_tensors`.
    """
    described = {"encoder": encoder.spec(), "about": dict(metadata or {})}
    save_tensors(path, encoder.state_dict(), described)


def load_encoder(path: str | PathLike[str]) -> Encoder:
    """Builds the encoder in a file of ``save_encoder`` or of a classifier, on the CPU.

    A UserError refuses other files, unknown encoders, and weights that do not fit.
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
    """Loads weights into an encoder; on an error the encoder does not change.

    ``weights`` is "imagenet", which networks of torchvision and timm download; or

    - a file of ``save_encoder``, or any file of safetensors or ``torch.save`` with the same
      tensors, under this encoder's names or those of the published network. All names may have a
      prefix, such as ``module.``. The observation size may differ if the shapes of the tensors do
      not depend on it, as with mean pooling;
    - a folder of Hugging Face with a ``model.safetensors`` or ``pytorch_model.bin``;
    - the directory of an agent's run, for its newest whole checkpoint, or the policy file of a
      checkpoint; the directory of a run on labelled images, for its best weights.

    The trunk of a published network loads from an encoder with any options; the other parts only
    from an equal encoder. The result says what happened to every tensor, and the origin of the
    weights.

    Raises:
        UserError: the file is missing, truncated or of an unknown format, or holds more than
            tensors; the weights belong to another encoder or other options (named); tensors are
            missing, left over or of another shape; values are not finite; there are no ImageNet
            weights, or they cannot be downloaded.
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
                f"{_how_to_build(spec, own)}"
            )
    prefix = ""
    if spec is None and not others:
        tensors, prefix, others = without_prefix(encoder, tensors, source)
    report = fill(encoder, tensors, source)
    origin = Origin.of_file(str(weights), path, file.metadata)
    return replace(report, unused=(*report.unused, *others), origin=origin, prefix=prefix)


def read_about(path: str | PathLike[str]) -> dict[str, Any]:
    """The metadata given to ``save_encoder``; empty for a file of another program."""
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


def _how_to_build(spec: EncoderSpec, own: EncoderSpec) -> str:
    """The options that change an encoder of spec ``own`` so that it takes the weights of ``spec``.

    Empty for another encoder, of which the message has the name.
    """
    if spec["name"] != own["name"]:
        return ""
    given, defaults = own["options"], encoder_options(spec["name"])
    wanted = {**{name: defaults.get(name) for name in given}, **spec["options"]}
    changed = {name: value for name, value in wanted.items() if given.get(name) != value}
    options = " ".join(f"{name} {value}" for name, value in changed.items())
    arm = ",".join([spec["name"], *(f"{name}={value}" for name, value in changed.items())])
    return f" Give --encoder-options {options}, or in an arm of a study {arm}@ before the weights."


def weights_file(path: Path) -> Path:
    """The weights file of a run's directory or a folder of Hugging Face; a file itself.

    For a pretraining, it is the best classifier; for an agent, the policy of the newest checkpoint.
    A UserError refuses a directory without weights, or a run without a whole checkpoint.
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
            f'"{path}" is a directory, but not a run, and not a folder with a {_HUGGING_FACE[0]}'
            f" or {_HUGGING_FACE[1]}{found}."
        )
    newest, broken = RunDirectory.open(path).latest_whole()
    if newest is None:
        found = f": {broken[0].path}: {broken[0].reason}" if broken else " yet"
        raise UserError(f'run "{path}" has no whole checkpoint to take weights from{found}.')
    return newest / "policy.safetensors"


def _encoder_tensors(file: TensorFile) -> tuple[dict[str, torch.Tensor], list[str]]:
    tensors = file.tensors
    if "tasks" in file.metadata:
        heads = [name for name in tensors if name.startswith(HEAD)]
        return {name: tensors[name] for name in tensors if name not in heads}, heads
    found = {name: match.end() for name in tensors if (match := _AGENTS_ENCODER.match(name))}
    if not found:
        # The file is neither an agent's nor a classifier's: it holds only an encoder.
        return dict(tensors), []
    encoder = {name[start:]: tensors[name] for name, start in found.items()}
    # A policy has its encoder under several names.
    known = {id(tensor) for tensor in encoder.values()}
    return encoder, [name for name, tensor in tensors.items() if id(tensor) not in known]


def read_spec(weights: str | PathLike[str]) -> EncoderSpec | None:
    """The encoder's spec in a weights file, or in that of a run; None if it has none."""
    path = weights_file(Path(weights))
    return _spec(read_tensors(path), path)
