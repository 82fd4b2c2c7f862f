"""One gradient step, for every network that learns here; it can be part of a CUDA graph."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn


def gradient_step(
    loss: torch.Tensor,
    optimizer: torch.optim.Optimizer,
    parameters: Iterable[nn.Parameter] = (),
    max_grad_norm: float | None = None,
) -> torch.Tensor:
    """Makes one optimiser step on a loss, float32 scalar, without waiting for the device.

    The gradients of ``parameters`` are clipped together: ``max_grad_norm`` is the largest norm of
    all as one vector; None does not clip. Returns that norm before clipping, float32 scalar.
    """
    parameters = list(parameters)
    optimizer.zero_grad()
    loss.backward()
    # The place of an all-reduce between processes, which then all clip the same gradients.
    if max_grad_norm is not None:
        norm = nn.utils.clip_grad_norm_(parameters, max_grad_norm)
    else:
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if not (torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()):
        optimizer.step()
        return norm
    # Outside a capture torch warns of steps that are marked.
    marked = [group for group in optimizer.param_groups if not group["capturable"]]
    _mark_capturable(marked, True)
    try:
        optimizer.step()
    finally:
        _mark_capturable(marked, False)
    return norm


def parameter_norm(network: nn.Module) -> torch.Tensor:
    """The norm of all parameters of a network as one vector, float32 scalar, without waiting."""
    # A copy for inference may hold bfloat16, in which norms have two digits.
    return nn.utils.get_total_norm([p.detach().float() for p in network.parameters()])


def can_capture_steps(optimizer: torch.optim.Optimizer) -> bool:
    """Whether a step of this optimiser can be part of a graph: its counts can be on the device.

    Those of a fused optimiser always are; those of one without a fused form, such as RAdam, are if
    :func:`keep_rates_on_device` puts them there.
    """
    return all(
        "capturable" in group and group.get("fused", True) for group in optimizer.param_groups
    )


def keep_rates_on_device(optimizer: torch.optim.Optimizer) -> None:
    """Keeps what captured steps read anew on the device; to be called before a round of steps.

    Learning rates become tensors, to be filled in place. An optimiser without a fused form counts
    its steps on the device, in float32. So its steps differ by more than rounding from those with
    counts on the host: RAdam's by some percent in its first dozen.
    """
    for group in optimizer.param_groups:
        device = group["params"][0].device
        # Loaded from a file, a rate may be a tensor of the host.
        group["lr"] = torch.as_tensor(group["lr"], dtype=torch.float32, device=device)
        if "fused" not in group and not group["capturable"]:
            warnings.filterwarnings("ignore", "This instance was constructed with capturable=True")
            group["capturable"] = True
            for state in filter(None, map(optimizer.state.get, group["params"])):
                state["step"] = state["step"].to(device)


def portable_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The optimiser's state for a file, which a machine without CUDA graphs may read."""
    state = optimizer.state_dict()
    for group in state["param_groups"]:
        group["lr"] = float(group["lr"])
        if "capturable" in group:
            group["capturable"] = False
    return state


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> Iterator[torch.Tensor]:
    """Everything that a captured step uses: parameters, the state kept for them, rates."""
    for group in optimizer.param_groups:
        yield group["lr"]
        for parameter in group["params"]:
            yield parameter
            # Not by [], which would make an entry.
            yield from optimizer.state.get(parameter, {}).values()


def _mark_capturable(groups: list[dict[str, Any]], capturable: bool) -> None:
    for group in groups:
        group["capturable"] = capturable
