"""Fine-tuning: a pretrained encoder learns at a fraction of the other layers' learning rate."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from rlcnn.encoders.base import Encoder


def finetuning_groups(network: nn.Module, encoder: Encoder, factor: float) -> list[dict[str, Any]]:
    """Parameter groups for an optimiser: the encoder's pretrained half, and all the rest.

    ``factor`` is the learning rate of the former as a multiple of the latter's. A group keeps its
    own as ``lr_factor``, by which :func:`set_learning_rate` sets its rate.
    """
    pretrained = [p for part in encoder.pretrained_parts() for p in part.parameters()]
    known = {id(parameter) for parameter in pretrained}
    others = [p for p in network.parameters() if id(p) not in known]
    return [
        {"params": pretrained, "lr_factor": factor},
        {"params": others, "lr_factor": 1.0},
    ]


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
