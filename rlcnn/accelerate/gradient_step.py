"""One gradient step, for every network that learns here; it can be part of a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn


def gradient_step(
    loss: torch.Tensor,
    optimizer: torch.optim.Optimizer,
    parameters: Iterable[nn.Parameter] = (),
    max_grad_norm: float | None = None,
    reduce_gradients: Callable[[], object] = lambda: None,
) -> None:
    """Makes one optimiser step on a loss, without waiting for the device.

    Args:
        loss: float32 scalar.
        optimizer: takes the step.
        parameters: those whose gradients are clipped together.
        max_grad_norm: largest norm of all gradients as one vector; None does not clip.
        reduce_gradients: called before clipping: the place of an all-reduce, after which every
            process clips the same gradients.
    """
    optimizer.zero_grad()
    loss.backward()
    reduce_gradients()
    if max_grad_norm is not None:
        nn.utils.clip_grad_norm_(parameters, max_grad_norm)
    with _capturable(optimizer):
        optimizer.step()


def can_capture_steps(optimizer: torch.optim.Optimizer) -> bool:
    """Whether a step of this optimiser can be part of a graph: its counts lie on the device."""
    return all(group.get("fused") and "capturable" in group for group in optimizer.param_groups)


def keep_rates_on_device(optimizer: torch.optim.Optimizer) -> None:
    """Turns the learning rates into tensors, which a captured step reads anew each time.

    From then on they are filled in place.
    """
    for group in optimizer.param_groups:
        device = group["params"][0].device
        # Loaded from a file, a rate may be a tensor of the host.
        group["lr"] = torch.as_tensor(group["lr"], dtype=torch.float32, device=device)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> Iterator[torch.Tensor]:
    """Everything that a captured step uses: parameters, the state kept for them, rates."""
    for group in optimizer.param_groups:
        yield group["lr"]
        for parameter in group["params"]:
            yield parameter
            # Not by [], which would make an entry.
            yield from optimizer.state.get(parameter, {}).values()


@contextmanager
def _capturable(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Marks a step as capturable while a graph is captured.

    Outside a capture torch warns of steps that are marked.
    """
    if not (torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()):
        yield
        return
    for group in optimizer.param_groups:
        group["capturable"] = True
    try:
        yield
    finally:
        for group in optimizer.param_groups:
            group["capturable"] = False
