"""Weights put into an encoder, and an account of what became of every tensor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from envs.errors import UserError
from rlcnn.encoders.architectures import current_name, find_architecture, published_sizes
from rlcnn.encoders.base import Encoder
from rlcnn.encoders.registry import create_encoder, list_encoders
from rlcnn.origin import Origin

# So many tensors of each kind are named in a line, which must stay one.
_NAMED = 3

# So many networks of about the same size are compared tensor by tensor.
_COMPARED = 4


@dataclass(frozen=True)
class LoadReport:
    """What became of each tensor of an encoder, and of a file, when weights were loaded.

    Attributes:
        loaded: tensors taken from the file as they were.
        adapted: tensors taken from the file with a change -> what the change was.
        new: tensors the file does not hold, left as they were initialised.
        unused: tensors of the file that have no place in the encoder, by the file's names.
        source: what to call in messages where the weights came from.
        origin: where they came from, in full; None where only tensors were given.
    """

    loaded: tuple[str, ...]
    adapted: Mapping[str, str]
    new: tuple[str, ...]
    unused: tuple[str, ...] = ()
    source: str = ""
    origin: Origin | None = None

    def __str__(self) -> str:
        """One line for people."""
        counts = f"{len(self.loaded)} loaded, {len(self.adapted)} adapted, {len(self.new)} new"
        if self.unused:
            counts += f", {len(self.unused)} left unused"
        notes = [f"{name}: {change}" for name, change in _grouped_changes(self.adapted)]
        notes += [f"{group}: new" for group in _grouped(self.new)]
        notes += [f"{group}: left unused" for group in _grouped(self.unused)]
        where = f" from {self.source}" if self.source else ""
        return f"tensors{where}: {counts}" + (f" ({'; '.join(notes)})" if notes else "")

    def to_json(self) -> dict[str, Any]:
        """Every tensor by name, and the origin, as plain JSON."""
        return {**asdict(self), "origin": self.origin.to_json() if self.origin else None}


def fill(encoder: Encoder, tensors: Mapping[str, torch.Tensor], source: str) -> LoadReport:
    """Loads tensors into an encoder, which is untouched unless every one of them is accounted for.

    Args:
        encoder: on any device.
        tensors: by the names of ``encoder.state_dict()``, or by those of a published network.
        source: what to call their origin in messages.

    Raises:
        UserError: tensors that are missing, left over or of another shape; the nearest network is
            named.
    """
    own = encoder.state_dict()
    placed: dict[str, torch.Tensor] = {}
    changes: dict[str, list[str]] = {}
    unused: list[str] = []
    strange: list[str] = []
    reshaped: list[str] = []
    for name, tensor in tensors.items():
        own_name = encoder.own_name(name)
        if own_name not in own:
            (unused if encoder.leaves_out(name) else strange).append(name)
            continue
        if tensor.shape != own[own_name].shape:
            adapted = encoder.adapt(own_name, tensor)
            if adapted is None:
                reshaped.append(
                    f"{own_name} {tuple(tensor.shape)} instead of {tuple(own[own_name].shape)}"
                )
                continue
            tensor, change = adapted
            changes.setdefault(own_name, []).append(change)
        if tensor.dtype != own[own_name].dtype:
            change = f"cast from {tensor.dtype} to {own[own_name].dtype}"
            changes.setdefault(own_name, []).append(change)
        placed[own_name] = tensor
    absent = [name for name in own if name not in placed and not _mentioned(name, reshaped)]
    missing = [name for name in absent if not encoder.may_stay_new(name)]
    problems = {"missing": missing, "left over": strange, "of another shape": reshaped}
    if any(problems.values()):
        told = "; ".join(_few(kind, names) for kind, names in problems.items() if names)
        raise UserError(
            f'{source} does not fit encoder "{encoder.name}" for observations '
            f"{encoder.observation_shape}: {told}.{_nearest_architecture(encoder, tensors)}"
        )
    encoder.load_state_dict({**own, **placed})
    return LoadReport(
        loaded=tuple(name for name in own if name in placed and name not in changes),
        adapted={name: ", ".join(changes[name]) for name in own if name in changes},
        new=tuple(absent),
        unused=tuple(unused),
        source=source,
    )


def _mentioned(name: str, reshaped: Iterable[str]) -> bool:
    return any(told.split(" ")[0] == name for told in reshaped)


def _few(kind: str, names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{kind}: {', '.join(names[:_NAMED])}{more}"


def _grouped(names: Iterable[str]) -> list[str]:
    """Names by the part they belong to: ``classifier.* (2 tensors)``; one alone in full."""
    names = list(names)
    counts = Counter(name.split(".")[0] for name in names)
    alone = {name.split(".")[0]: name for name in names}
    return [f"{part}.* ({n} tensors)" if n > 1 else alone[part] for part, n in counts.items()]


def _grouped_changes(adapted: Mapping[str, str]) -> list[tuple[str, str]]:
    """Tensors of one change under one name, where they are many."""
    by_change: dict[str, list[str]] = {}
    for name, change in adapted.items():
        by_change.setdefault(change, []).append(name)
    return [
        (", ".join(names) if len(names) <= _NAMED else f"{len(names)} tensors", change)
        for change, names in by_change.items()
    ]


def _nearest_architecture(encoder: Encoder, tensors: Mapping[str, torch.Tensor]) -> str:
    """A hint at the encoder that ``tensors`` fit entirely or best, or nothing."""
    shapes = {current_name(name): tensor.shape for name, tensor in tensors.items()}
    overlaps: dict[str, float] = {}
    for name in [*list_encoders(), *_networks_of_size(tensors)]:
        try:
            # Shapes are all that is wanted: on the meta device nothing is initialised.
            with torch.device("meta"):
                if architecture := find_architecture(name):
                    candidate = architecture.build().state_dict()
                else:
                    candidate = create_encoder(name, encoder.observation_shape).state_dict()
        except UserError:
            continue
        fitting = sum(shapes.get(key) == tensor.shape for key, tensor in candidate.items())
        overlaps[name] = fitting / max(len(shapes), len(candidate))
    best = max(overlaps, key=lambda name: overlaps[name], default=encoder.name)
    if best == encoder.name.split(":")[0] or overlaps[best] < 0.5:
        return ""
    return f' It {"fits" if overlaps[best] == 1 else "is nearest to"} encoder "{best}".'


def _networks_of_size(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    """The networks of torchvision whose published sizes are nearest to that of ``tensors``."""
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    size = sum(tensor.numel() for name, tensor in tensors.items() if not name.endswith(buffers))
    sizes = published_sizes()
    return sorted(sizes, key=lambda name: abs(sizes[name] - size))[:_COMPARED]
