"""A pretrained encoder in an agent: learning rates of parts, and the step from which it learns."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.dqn.policies import DQNPolicy
from torch import nn

from agents.sb3.arguments import check_count
from envs.errors import UserError
from rlcnn.encoders.base import Encoder, check_positive
from rlcnn.encoders.finetuning import finetuning_groups, set_learning_rate
from rlcnn.sb3 import EncoderExtractor


def rebuild_optimizer(
    policy: ActorCriticPolicy | DQNPolicy,
    network: nn.Module,
    heads: Callable[[], Sequence[nn.Module]],
    encoder_lr_factor: float,
    head_lr_factor: float,
) -> None:
    """Gives parts of ``network``, which ``policy`` optimises, learning rates of their own.

    They are the encoder's pretrained half and the first layer behind it: the encoder's projection,
    if that is not pretrained, or ``heads()``, the layers that take the encoder's features. Their
    rates are factors of the other layers' rate; if both are 1, the optimiser stays. A UserError
    refuses a factor that is not a positive number, an encoder that is not of ours, and a frozen
    encoder's own factor.
    """
    factors = {"encoder_lr_factor": encoder_lr_factor, "head_lr_factor": head_lr_factor}
    given = [option for option, factor in factors.items() if factor != 1]
    if not given:
        return
    extractor = _our_extractor(network, given[0])
    for option in given:
        check_positive(option, factors[option], whole=False)
    if encoder_lr_factor != 1 and extractor.frozen:
        raise UserError("encoder_lr_factor has no meaning for a frozen encoder")
    encoder = extractor.encoder
    first: Sequence[nn.Module] = ()
    if head_lr_factor != 1:
        first = [encoder] if _learns_more_than_pretrained(encoder) else heads()
    rate = policy.optimizer.param_groups[0]["lr"]
    policy.optimizer = policy.optimizer_class(
        finetuning_groups(network, encoder, encoder_lr_factor, first, head_lr_factor),
        lr=rate,  # type: ignore[call-arg]
        **policy.optimizer_kwargs,
    )
    set_learning_rate(policy.optimizer, rate)


def freeze_until(network: nn.Module, unfreeze_at_step: int) -> None:
    """Freezes a new network's encoder until a step; 0 lets it learn from the start.

    The optimiser has its parameters from the start, without gradients. A UserError refuses a step
    that is no whole number from 0, and an encoder that is frozen or not of ours.
    """
    check_count("unfreeze_at_step", unfreeze_at_step, least=0)
    if unfreeze_at_step:
        extractor = _our_extractor(network, "unfreeze_at_step")
        if extractor.frozen:
            raise UserError("unfreeze_at_step has no meaning for an encoder that stays frozen")
        extractor.set_trainable(False)


def unfreeze_at(network: nn.Module, unfreeze_at_step: int, step: int) -> None:
    """Lets the encoder learn from the first update at ``unfreeze_at_step`` on; 0 froze nothing.

    To be called before every update: the result follows from ``step``, the environment steps so
    far, alone, so that a resumed training continues as it would have.
    """
    if unfreeze_at_step:
        _our_extractor(network, "unfreeze_at_step").set_trainable(step >= unfreeze_at_step)


def frozen_version(network: nn.Module) -> tuple[tuple[int, int], ...]:
    """Changes whenever a frozen encoder is written to; () without one.

    No tensor is read: the version has each one's address and how often it was written.
    """
    return tuple((t.data_ptr(), t._version) for t in _frozen_tensors(network))


def frozen_digest(network: nn.Module) -> str:
    """SHA-256 of a frozen encoder's tensors, hexadecimal; empty without one."""
    digest = hashlib.sha256()
    tensors = _frozen_tensors(network)
    for tensor in tensors:
        digest.update(tensor.detach().cpu().numpy().tobytes())
    return digest.hexdigest() if tensors else ""


def without_weights(arguments: dict[str, Any]) -> dict[str, Any]:
    """A policy's arguments without the file of initial weights, which its parameters now hold.

    The file may be gone when a saved agent is loaded.
    """
    extractor = arguments.get("features_extractor_kwargs") or {}
    if "weights" not in extractor:
        return arguments
    kept = {name: value for name, value in extractor.items() if name != "weights"}
    return {**arguments, "features_extractor_kwargs": kept}


def _learns_more_than_pretrained(encoder: Encoder) -> bool:
    """Whether a layer of the encoder, such as its projection, follows its pretrained half."""
    pretrained = {id(p) for part in encoder.pretrained_parts() for p in part.parameters()}
    return any(id(p) not in pretrained for p in encoder.parameters())


def _frozen_tensors(network: nn.Module) -> list[torch.Tensor]:
    extractor = network.features_extractor
    if not isinstance(extractor, EncoderExtractor) or not extractor.frozen:
        return []
    parts = extractor.encoder.pretrained_parts()
    return [t for part in parts for t in (*part.parameters(), *part.buffers())]


def _our_extractor(network: nn.Module, option: str) -> EncoderExtractor:
    extractor = network.features_extractor
    if not isinstance(extractor, EncoderExtractor):
        raise UserError(f"{option} is for encoders of ours, not {type(extractor).__name__}")
    return extractor
