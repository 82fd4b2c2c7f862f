"""Weights put into an encoder, and an account of what became of every tensor."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from envs.errors import UserError
from rlcnn.encoders.architectures import current_name, find_architecture, published_sizes
from rlcnn.encoders.base import Encoder
from rlcnn.encoders.registry import create_encoder, list_encoders
from rlcnn.weights.origin import Origin

# What training scripts put before the names of a network's tensors.
_PREFIXES = {
    *("module", "model", "backbone", "encoder", "net", "network", "_orig_mod", "_model"),
    *("base_encoder", "encoder_q", "teacher", "student", "visual", "trunk", "body", "ema_model"),
}

# What torch puts between the names of modules that it compiles, shards or recomputes.
_WRAPPERS = re.compile(r"(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")

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
        prefix: what the file's names began with and was left out of them, such as "module.".
    """

    loaded: tuple[str, ...]
    adapted: Mapping[str, str]
    new: tuple[str, ...]
    unused: tuple[str, ...] = ()
    source: str = ""
    origin: Origin | None = None
    prefix: str = ""

    def __str__(self) -> str:
        """One line for people."""
        counts = f"{len(self.loaded)} loaded, {len(self.adapted)} adapted, {len(self.new)} new"
        if self.unused:
            counts += f", {len(self.unused)} left unused"
        notes = [f'names without their prefix "{self.prefix}"'] if self.prefix else []
        notes += [f"{name}: {change}" for name, change in _grouped_changes(self.adapted)]
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
        UserError: tensors that are missing, left over or of another shape (the nearest network is
            named), or that hold NaN or infinite values.
    """
    own = encoder.state_dict()
    placed: dict[str, torch.Tensor] = {}
    changes: dict[str, list[str]] = {}
    sources: dict[str, str] = {}
    unused: list[str] = []
    strange: list[str] = []
    reshaped: list[str] = []
    misfits: list[tuple[torch.Size, torch.Size]] = []
    for name, tensor in tensors.items():
        own_name = encoder.own_name(name)
        if own_name not in own:
            (unused if encoder.leaves_out(name) else strange).append(name)
            continue
        if tensor.shape != own[own_name].shape:
            adapted = encoder.adapt(own_name, tensor)
            if adapted is None:
                misfits.append((tensor.shape, own[own_name].shape))
                reshaped.append(
                    f"{own_name} {tuple(tensor.shape)} instead of {tuple(own[own_name].shape)}"
                )
                continue
            tensor, change = adapted
            changes.setdefault(own_name, []).append(change)
        if tensor.dtype != own[own_name].dtype:
            change = f"cast from {tensor.dtype} to {own[own_name].dtype}"
            changes.setdefault(own_name, []).append(change)
        if reason := _unusable(tensor, own[own_name]):
            raise UserError(f"{source} holds no usable weights: {name} {reason}.")
        placed[own_name] = tensor.to(own[own_name].dtype)
        sources[own_name] = name
    absent = [name for name in own if name not in placed and not _mentioned(name, reshaped)]
    missing = [name for name in absent if not encoder.may_stay_new(name)]
    problems = {"missing": missing, "left over": strange, "of another shape": reshaped}
    if any(problems.values()):
        advice = _channels_advice(misfits, encoder) or _nearest_architecture(encoder, tensors)
        told = "; ".join(_few(kind, names) for kind, names in problems.items() if names)
        raise UserError(
            f'{source} does not fit encoder "{encoder.name}" for observations '
            f"{encoder.observation_shape}: {told}.{advice}"
        )
    if bad := [sources[name] for name, tensor in placed.items() if not is_finite(tensor)]:
        raise UserError(
            f"{source} holds weights that are no finite numbers (NaN or infinite), as a training"
            f" that diverged leaves them: {_few('in', bad)}."
        )
    encoder.load_state_dict({**own, **placed})
    return LoadReport(
        loaded=tuple(name for name in own if name in placed and name not in changes),
        adapted={name: ", ".join(changes[name]) for name in own if name in changes},
        new=tuple(absent),
        unused=tuple(unused),
        source=source,
    )


def without_prefix(
    encoder: Encoder, tensors: Mapping[str, torch.Tensor], source: str
) -> tuple[dict[str, torch.Tensor], str, list[str]]:
    """Tensors by the names that an encoder knows, where a file puts something before all of them.

    A prefix is taken off where all that the encoder needs is found behind it. Otherwise one that
    all names share is, as far as it consists of words that training scripts put there; then the
    network that the tensors do fit can be named.

    Args:
        encoder: what they are for.
        tensors: by the names of the file.
        source: what to call their origin in messages.

    Returns:
        The tensors by their names without the prefix, the prefix, and the names without it.

    Raises:
        UserError: what the encoder needs is found behind several prefixes, with other values.
    """
    own = encoder.state_dict()
    found: dict[str, set[str]] = {}
    for name in tensors:
        for start in (0, *(dot.end() for dot in re.finditer(r"\.", name))):
            if (own_name := encoder.own_name(name[start:])) in own:
                found.setdefault(name[:start], set()).add(own_name)
    needed = {name for name in own if not encoder.may_stay_new(name)}
    whole = [prefix for prefix, names in found.items() if needed and names >= needed]
    if "" in whole:
        return dict(tensors), "", []
    if not whole and (wrappers := sorted({m[0] for n in tensors for m in _WRAPPERS.finditer(n)})):
        plain = {_WRAPPERS.sub("", name): tensor for name, tensor in tensors.items()}
        if len(plain) == len(tensors):
            inner, prefix, others = without_prefix(encoder, plain, source)
            return inner, "".join(wrappers) + prefix, others
    if not whole:
        prefix = _shared_prefix(tensors)
        # Names that are the encoder's own as they stand, of which some are missing.
        prefix = "" if len(found.get("", ())) >= max(1, len(found.get(prefix, ()))) else prefix
    else:
        prefix = whole[0]
        parts = [_behind(prefix, tensors) for prefix in whole]
        if not all(_equal(parts[0], part) for part in parts[1:]):
            choices = ", ".join(f'"{prefix}"' for prefix in whole)
            raise UserError(
                f'{source} holds weights for encoder "{encoder.name}" more than once, behind the'
                f" prefixes {choices}: save those that are meant in a file of their own."
            )
    others = [name for name in tensors if not name.startswith(prefix)]
    return _behind(prefix, tensors), prefix, others


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether no value of a tensor is NaN or infinite."""
    return bool(torch.isfinite(tensor).all())


def _unusable(tensor: torch.Tensor, own: torch.Tensor) -> str:
    """Why the values of a tensor cannot stand for those of an encoder's; empty where they can."""
    if tensor.is_meta:
        return "has a shape, but no values"
    if tensor.is_quantized or tensor.layout != torch.strided:
        kind = "quantized" if tensor.is_quantized else "sparse"
        return f"is {kind}: save it as a plain tensor first"
    if own.is_floating_point() and not tensor.is_floating_point():
        return f"is of {tensor.dtype}, not of floating-point numbers"
    return ""


def _behind(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


def _equal(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def _shared_prefix(names: Iterable[str]) -> str:
    """The words of ``_PREFIXES`` that all names begin with."""
    rests, prefix = list(names), ""
    while rests:
        words = {rest.split(".")[0] for rest in rests}
        if len(words) > 1 or not words <= _PREFIXES or any("." not in rest for rest in rests):
            break
        word = f"{words.pop()}."
        prefix += word
        rests = [rest.removeprefix(word) for rest in rests]
    return prefix


def _channels_advice(misfits: list[tuple[torch.Size, torch.Size]], encoder: Encoder) -> str:
    """How to get observations of the channels that weights were made for, or nothing.

    Args:
        misfits: shapes in the file and in the encoder of the tensors in which both differ.
        encoder: what they are for.
    """
    if len(misfits) != 1:
        return ""
    ((theirs, own),) = misfits
    if len(theirs) != 4 or theirs[:1] + theirs[2:] != own[:1] + own[2:]:
        return ""
    count = theirs[1]
    options = "--obs rgb --frame-stack 1" if count == 3 else f"--frame-stack {count}"
    if count > 3 and count % 3 == 0:
        options += f" or --obs rgb --frame-stack {count // 3}"
    if encoder.options.get("stacking") == "per_frame":
        # Its network sees one RGB frame at a time, whatever the observations.
        options = f"--encoder-options stacking inflated {options}"
    channels = "1 channel" if count == 1 else f"{count} channels"
    return (
        f" They were made for images of {channels}, not {own[1]}: train_agent.py makes such"
        f" observations with {options}."
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


class without_values(TorchFunctionMode):  # noqa: N801
    """Makes parameters without values, since only their shapes are wanted.

    The default device "meta" would leave out those tensors as well that a network computes its
    widths with, as RegNet does.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.empty:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


def _nearest_architecture(encoder: Encoder, tensors: Mapping[str, torch.Tensor]) -> str:
    """A hint at the encoder that ``tensors`` fit entirely or best, or nothing."""
    shapes = {current_name(name): tensor.shape for name, tensor in tensors.items()}
    overlaps: dict[str, float] = {}
    for name in [*list_encoders(), *_networks_of_size(tensors)]:
        try:
            with without_values():
                if architecture := find_architecture(name):
                    candidate = architecture.build().state_dict()
                else:
                    candidate = create_encoder(name, encoder.observation_shape).state_dict()
        except Exception:
            # It is only a hint.
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
    counts = {n: tensor.numel() for n, tensor in tensors.items() if not n.endswith(buffers)}
    # A published size may leave out the auxiliary classifiers that the file holds.
    auxiliary = sum(count for name, count in counts.items() if name.lower().startswith("aux"))
    whole = sum(counts.values())
    sizes = published_sizes()
    return sorted(
        sizes, key=lambda name: min(abs(sizes[name] - size) for size in (whole, whole - auxiliary))
    )[:_COMPARED]
