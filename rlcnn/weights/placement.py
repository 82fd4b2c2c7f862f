"""Puts tensors into an encoder: every tensor fits, or nothing changes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch

from envs.errors import UserError
from rlcnn.encoders.base import Encoder
from rlcnn.weights.nearest import nearest_architecture
from rlcnn.weights.report import NAMED, LoadReport

# Prefixes that training scripts put before the names of a network's tensors.
_PREFIXES = {
    *("module", "model", "backbone", "encoder", "net", "network", "_orig_mod", "_model"),
    *("base_encoder", "encoder_q", "teacher", "student", "visual", "trunk", "body", "ema_model"),
}

# Names that torch inserts when it compiles, shards or recomputes modules.
_WRAPPERS = re.compile(r"(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")


def fill(encoder: Encoder, tensors: Mapping[str, torch.Tensor], source: str) -> LoadReport:
    """Loads tensors into an encoder; on an error, which names ``source``, it does not change.

    Tensors have the names of ``encoder.state_dict()`` or of a published network. A UserError says
    that some are missing, left over or of another shape (it names the nearest network), or not
    finite.
    """
    own = encoder.state_dict()
    placed: dict[str, torch.Tensor] = {}
    changes: dict[str, list[str]] = {}
    sources: dict[str, str] = {}
    unused: list[str] = []
    strange: list[str] = []
    misfits: dict[str, tuple[torch.Size, torch.Size]] = {}
    for name, tensor in tensors.items():
        own_name = encoder.own_name(name)
        if own_name not in own:
            (unused if encoder.leaves_out(name) else strange).append(name)
            continue
        if tensor.shape != own[own_name].shape:
            adapted = encoder.adapt(own_name, tensor)
            if adapted is None:
                misfits[own_name] = (tensor.shape, own[own_name].shape)
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
    reshaped = [
        f"{n} {tuple(file)} instead of {tuple(ours)}" for n, (file, ours) in misfits.items()
    ]
    absent = [name for name in own if name not in placed and name not in misfits]
    missing = [name for name in absent if not encoder.may_stay_new(name)]
    problems = {"missing": missing, "left over": strange, "of another shape": reshaped}
    if any(problems.values()):
        advice = _channels_advice(misfits, encoder) or nearest_architecture(encoder, tensors)
        found = "; ".join(_few(kind, names) for kind, names in problems.items() if names)
        raise UserError(
            f'{source} does not fit encoder "{encoder.name}" for observations '
            f"{encoder.observation_shape}: {found}.{advice}"
        )
    bad = [sources[name] for name, tensor in placed.items() if not torch.isfinite(tensor).all()]
    if bad:
        raise UserError(
            f"{source} holds weights that are not finite (NaN or infinite), as a training that"
            f" diverged leaves them: {_few('in', bad)}."
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
    """Removes a prefix from the names of a file's tensors.

    A prefix is removed if all tensors that the encoder needs have it. Otherwise a shared prefix of
    all names is removed if training scripts use it, so that a message can name the network that the
    tensors fit. A UserError refuses several prefixes with different values.

    Returns:
        The tensors with the prefix by their names without it, the prefix, and the other names.
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
        # Most names are the encoder's own without any change; some tensors are missing.
        prefix = "" if len(found.get("", ())) >= max(1, len(found.get(prefix, ()))) else prefix
    else:
        prefix = whole[0]
        parts = [_behind(prefix, tensors) for prefix in whole]
        if not all(
            part.keys() == parts[0].keys()
            and all(torch.equal(part[name], parts[0][name]) for name in part)
            for part in parts[1:]
        ):
            choices = ", ".join(f'"{prefix}"' for prefix in whole)
            raise UserError(
                f'{source} holds weights for encoder "{encoder.name}" more than once, with the'
                f" prefixes {choices}: save the right ones in a file of their own."
            )
    others = [name for name in tensors if not name.startswith(prefix)]
    return _behind(prefix, tensors), prefix, others


def _unusable(tensor: torch.Tensor, own: torch.Tensor) -> str:
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


def _shared_prefix(names: Iterable[str]) -> str:
    """The longest prefix of all names that consists of words in ``_PREFIXES``."""
    rests, prefix = list(names), ""
    while rests:
        words = {rest.split(".")[0] for rest in rests}
        if len(words) > 1 or not words <= _PREFIXES or any("." not in rest for rest in rests):
            break
        word = f"{words.pop()}."
        prefix += word
        rests = [rest.removeprefix(word) for rest in rests]
    return prefix


def _channels_advice(misfits: dict[str, tuple[torch.Size, torch.Size]], encoder: Encoder) -> str:
    """How to get observations with the channels of the weights, if that is the problem."""
    if len(misfits) != 1:
        return ""
    ((theirs, own),) = misfits.values()
    if len(theirs) != 4 or theirs[:1] + theirs[2:] != own[:1] + own[2:]:
        return ""
    count = theirs[1]
    options = "--obs rgb --frame-stack 1" if count == 3 else f"--frame-stack {count}"
    if count > 3 and count % 3 == 0:
        options += f" or --obs rgb --frame-stack {count // 3}"
    if encoder.options.get("stacking") == "per_frame":
        # Per frame, the network always takes one RGB frame.
        options = f"--encoder-options stacking inflated {options}"
    channels = "1 channel" if count == 1 else f"{count} channels"
    return (
        f" They were made for images of {channels}, not {own[1]}: train_agent.py makes such"
        f" observations with {options}."
    )


def _few(kind: str, names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{kind}: {', '.join(names[:NAMED])}{more}"
