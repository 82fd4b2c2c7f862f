"""Optimiser, learning rate and loss of a training on labelled images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from rlcnn.data.images import UNKNOWN
from rlcnn.encoders.base import Encoder
from rlcnn.encoders.finetuning import finetuning_groups
from rlcnn.supervised.config import PretrainConfig


def make_optimizer(
    model: nn.Module, config: PretrainConfig, finetuned: Encoder | None = None
) -> torch.optim.Optimizer:
    """SGD with momentum, or AdamW, for all trained parameters; on a GPU a step is one fused kernel.

    Without ``decay_all`` only parameters with several dimensions decay: weights, but not biases and
    scales of normalisation layers. ``finetuned`` is a part of the model that learns at a resolved
    configuration's ``finetune_factor`` of the rate.
    """
    parts: list[dict[str, Any]] = [{"params": list(model.parameters())}]
    if finetuned is not None:
        assert config.finetune_factor is not None
        parts = finetuning_groups(model, finetuned, config.finetune_factor)
    groups: list[dict[str, Any]] = []
    for part in parts:
        trained = [p for p in part["params"] if p.requires_grad]
        decaying = [p for p in trained if config.decay_all or p.ndim > 1]
        others = [p for p in trained if not config.decay_all and p.ndim <= 1]
        for parameters, decay in ((decaying, config.weight_decay), (others, 0.0)):
            if parameters:
                groups.append({**part, "params": parameters, "weight_decay": decay})
    rate, fused = config.learning_rate, groups[0]["params"][0].is_cuda or None
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, rate, betas=(config.momentum, 0.999), fused=fused)
    return torch.optim.SGD(
        groups, rate, momentum=config.momentum, nesterov=config.nesterov, fused=fused
    )


def adopt_kernels(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Sets the choice of kernels in a saved state of any device to that of ``optimizer``, in place.

    Otherwise loading the state would restore the choice for another device.
    """
    for own, saved in zip(optimizer.param_groups, state["param_groups"], strict=True):
        saved |= {name: own[name] for name in ("fused", "foreach", "capturable") if name in own}


def learning_rate(config: PretrainConfig, step: int, steps_per_epoch: int) -> float:
    """The learning rate of an update after ``step`` earlier ones.

    It rises linearly to ``config.learning_rate`` over the warm-up, and is above 0 from the first
    update on. Then "linear" and "cosine" (Loshchilov & Hutter 2017, equation 5, without restarts)
    fall to 0 at the end of the run, and "steps" falls at shares of the whole run.
    """
    total = config.epochs * steps_per_epoch
    warmup = config.warmup_epochs * steps_per_epoch
    if step < warmup:
        return config.learning_rate * min(1.0, (step + 1) / warmup)
    progress = (step - warmup) / max(1.0, total - warmup)
    match config.schedule:
        case "constant":
            factor = 1.0
        case "linear":
            factor = 1 - progress
        case "cosine":
            factor = (1 + math.cos(math.pi * progress)) / 2
        case "steps":
            passed = sum(step >= share * total for share in config.milestones)
            factor = config.step_factor**passed
    return config.learning_rate * factor


def classification_loss(
    logits: Sequence[torch.Tensor], labels: torch.Tensor, label_smoothing: float = 0.0
) -> torch.Tensor:
    """Mean over tasks of the mean cross-entropy over the images whose class is known, a scalar.

    ``logits`` are (batch, classes) for each task, and ``labels`` int64 (batch, tasks). A task
    without a known class in the batch has loss 0. ``label_smoothing`` is the share of the target
    that is spread evenly over all classes.
    """
    losses = []
    for column, scores in enumerate(logits):
        target = labels[:, column]
        summed = F.cross_entropy(
            scores, target, ignore_index=UNKNOWN, reduction="sum", label_smoothing=label_smoothing
        )
        losses.append(summed / (target != UNKNOWN).sum().clamp(min=1))
    return torch.stack(losses).mean()
