"""Fine-tuning: a pretrained encoder learns at a fraction of the other layers' learning rate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from rlcnn.encoders.base import Encoder


def finetuning_groups(
    network: nn.Module,
    encoder: Encoder,
    factor: float,
    first_layers: Sequence[nn.Module] = (),
    first_factor: float = 1.0,
) -> list[dict[str, Any]]:
    """Parameter groups for an optimiser, in this order; groups without parameters are left out.

    The encoder's pretrained half learns at ``factor`` times the learning rate of all other layers,
    and what else is in ``first_layers`` at ``first_factor`` times that rate. A group keeps its
    factor as ``lr_factor``, by which :func:`set_learning_rate` sets its rate.
    """
    groups: list[dict[str, Any]] = []
    known: set[int] = set()
    for modules, own_factor in (
        (encoder.pretrained_parts(), factor),
        (first_layers, first_factor),
        ([network], 1.0),
    ):
        parameters = [p for part in modules for p in part.parameters() if id(p) not in known]
        known.update(map(id, parameters))
        if parameters:
            groups.append({"params": parameters, "lr_factor": own_factor})
    return groups


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Sets the rate of every group, times its ``lr_factor``, if it has one.

    A rate that is a tensor, which captured code reads, is filled in place.
    """
    for group in optimizer.param_groups:
        scaled = rate * group.get("lr_factor", 1.0)
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(scaled)
        else:
            group["lr"] = scaled
