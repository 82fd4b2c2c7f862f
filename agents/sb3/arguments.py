"""Arguments of stable-baselines3's users: they work as there, or are refused in one line."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy, BaseModel, BasePolicy
from stable_baselines3.common.preprocessing import maybe_transpose
from stable_baselines3.common.torch_layers import (
    BaseFeaturesExtractor,
    CombinedExtractor,
    NatureCNN,
)
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn

from envs.errors import UserError, nearest
from rlcnn.accelerate.devices import resolve_device
from rlcnn.sb3 import EncoderExtractor, check_encoder_arguments

POLICY_OPTIONS = (
    *("precision", "encoder_lr_factor", "head_lr_factor"),
    *("unfreeze_at_step", "feature_dtype"),
)
"""Arguments that our policies add to stable-baselines3's."""

_ENCODER_HINT = 'an encoder is chosen by features_extractor_kwargs=dict(encoder="impala")'


def resolve_policy(
    policy: Any, policy_kwargs: Any, ours: type[BasePolicy], theirs: type[BasePolicy]
) -> tuple[type[BasePolicy], dict[str, Any]]:
    """Our policy class for the one that was asked for, and its arguments.

    ``theirs``, stable-baselines3's own policy for images, given as a class or read from its zip,
    becomes ``ours`` with its network, ``NatureCNN``: the parameters have the same names and shapes.
    A UserError refuses another class, and unknown arguments.
    """
    chosen = _as_dict("policy_kwargs", policy_kwargs)
    for name in chosen:
        if not isinstance(name, str):
            raise UserError(f"policy_kwargs must have names as keys, not {shown(name)}")
    if policy is theirs:
        policy = ours
        extractor = chosen.setdefault("features_extractor_class", NatureCNN)
        if extractor is not NatureCNN:
            # stable-baselines3's default behind any other extractor.
            chosen.setdefault("net_arch", [64, 64])
    if not (isinstance(policy, type) and issubclass(policy, ours)):
        name = getattr(policy, "__name__", repr(policy))
        is_policy = isinstance(policy, type) and issubclass(policy, BasePolicy)
        # A file of the other algorithm names a policy of that one.
        other = is_policy and not issubclass(policy, theirs.__bases__)
        hint = "; a file saved by another algorithm is loaded by it" if other else ""
        raise UserError(
            f'policy {name} does not fit: expected "CnnPolicy" or a subclass of'
            f" agents.networks.policies.{ours.__name__}{hint}"
        )
    _check_extractor(chosen)
    return policy, chosen


def arguments_for(base: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that stable-baselines3's class takes, out of those of ours."""
    return {name: given[name] for name in _parameters(base) if name in given}


def check_policy_arguments(base: type[BasePolicy], options: Mapping[str, Any]) -> None:
    """Refuses arguments of a policy that are unknown or of the wrong kind, by a UserError.

    ``base`` is stable-baselines3's policy, which takes ``options``.
    """
    known = [*_parameters(base), *POLICY_OPTIONS]
    for name in options:
        if name not in known:
            hint = "." + nearest(name, known)
            if name in _parameters(ActorCriticPolicy):
                hint = "; only PPO's policy has it: leave it out"
            elif name.startswith("encoder"):
                hint = f"; {_ENCODER_HINT}"
            raise UserError(f'policy_kwargs has no option "{name}"{hint}'.rstrip("."))
    if options.get("squash_output"):
        raise UserError("squash_output is not supported: it bounds continuous actions")
    _check_extractor(options)
    if options.get("net_arch") is not None:
        _check_net_arch(base, options["net_arch"])
    if "activation_fn" in options:
        _check_activation(options["activation_fn"])
    _check_optimizer(
        options.get("optimizer_class", torch.optim.Adam),
        _as_dict("optimizer_kwargs", options.get("optimizer_kwargs")),
    )


def adam_arguments(eps: float, default: float, given: Mapping[str, Any]) -> dict[str, Any]:
    """The policy's arguments for an Adam with another ``eps`` than the policy's own, ``default``.

    A UserError says that the arguments ``given`` by the user choose the optimizer.
    """
    if eps == default:
        return {}
    if {"optimizer_class", "optimizer_kwargs"} & given.keys():
        raise UserError(
            f"adam_eps {eps:g} is for the default optimizer: put eps into optimizer_kwargs instead"
        )
    return {"optimizer_kwargs": {"fused": True, "eps": eps}}


def check_count(name: str, value: Any, least: int = 1) -> None:
    """Raises UserError unless ``value`` is a whole number from ``least``."""
    if not _is_whole(value):
        raise UserError(f"{name} must be a whole number, not {shown(value)}")
    if value < least:
        raise UserError(f"{name} must be at least {least}, not {value}")


def checked_device(device: Any) -> Any:
    """A device as stable-baselines3 takes it: "cuda" is the CPU if torch finds no GPU.

    A UserError refuses one that this machine lacks, or that is not supported.
    """
    name = f"cuda:{device}" if type(device) is int else str(device)
    if re.fullmatch(r"cuda(:\d+)?", name) and not torch.cuda.is_available():
        return name
    return resolve_device(name)


def shown(value: Any) -> str:
    """A value in one short line."""
    line = " ".join(repr(value).split())
    return line if len(line) <= 60 else f"{line[:57]}..."


class ImageInput(BaseModel):
    """Turns the numbers that ``predict`` is given into uint8 images."""

    def obs_to_tensor(self, observation: Any) -> tuple[PyTorchObs, bool]:
        """Observations as a uint8 tensor on the device, and whether they are a batch.

        One observation or several, channels first or last, of any numbers from 0 to 255; fractions
        are rounded.

        Raises:
            UserError: the shape differs, or the numbers are not pixels of 0 to 255.
        """
        assert isinstance(self.observation_space, spaces.Box)
        return super().obs_to_tensor(_as_images(observation, self.observation_space))

    def parameters_to_vector(self) -> np.ndarray:
        """All parameters in one vector, float32."""
        # stable-baselines3's own calls view(), which the layout of an encoder's weights refuses.
        flat = [parameter.detach().flatten() for parameter in self.parameters()]
        return torch.cat(flat).cpu().numpy()

    @torch.no_grad()
    def load_from_vector(self, vector: np.ndarray) -> None:
        """Sets all parameters, from what :meth:`parameters_to_vector` returned."""
        parameters = list(self.parameters())
        parts = torch.as_tensor(vector).split([parameter.numel() for parameter in parameters])
        for parameter, part in zip(parameters, parts, strict=True):
            parameter.copy_(part.view(parameter.shape))


def _as_images(observation: Any, space: spaces.Box) -> np.ndarray:
    if isinstance(observation, Mapping):
        raise UserError(f"predict takes an array of images {space.shape}, not a dict")
    if isinstance(observation, torch.Tensor):
        observation = observation.detach().cpu()
        # numpy has no bfloat16.
        observation = observation.float() if observation.is_floating_point() else observation
    try:
        images = np.asarray(observation)
    except (ValueError, TypeError, RuntimeError) as error:
        raise UserError(
            f"predict takes an array of images {space.shape} or a batch of them; this"
            f" {type(observation).__name__} makes no array: {' '.join(str(error).split())}"
        ) from error
    if images.ndim in (3, 4):
        images = maybe_transpose(images, space)
    if images.ndim not in (3, 4) or images.shape[-3:] != space.shape:
        raise UserError(
            f"predict takes images {space.shape} or a batch of them, not of shape {images.shape}"
        )
    if images.dtype == np.uint8:
        # torch takes no array with a negative stride, such as a flipped image.
        return images.copy() if min(images.strides) < 0 else images
    if images.dtype.kind not in "buif":
        raise UserError(f"predict takes pixels of 0 to 255, not {images.dtype}")
    least, most = (images.min(), images.max()) if images.size else (0, 0)
    # A comparison with NaN is False.
    if not (least >= 0 and most <= 255):
        raise UserError(f"predict takes pixels of 0 to 255, not of {least:g} to {most:g}")
    rounded = np.rint(images) if images.dtype.kind == "f" else images
    if most <= 1 and (rounded != images).any():
        raise UserError(
            "predict takes pixels of 0 to 255, but these are fractions of at most 1: multiply by"
            " 255, or hand over the uint8 images"
        )
    return rounded.astype(np.uint8)


def _check_extractor(options: Mapping[str, Any]) -> None:
    extractor = options.get("features_extractor_class", EncoderExtractor)
    given = _as_dict("features_extractor_kwargs", options.get("features_extractor_kwargs"))
    is_extractor = isinstance(extractor, type) and issubclass(extractor, BaseFeaturesExtractor)
    if not is_extractor or extractor is BaseFeaturesExtractor:
        raise UserError(
            "features_extractor_class must be a subclass of BaseFeaturesExtractor, not"
            f" {shown(extractor)}; {_ENCODER_HINT}"
        )
    name = extractor.__name__
    if issubclass(extractor, CombinedExtractor):
        raise UserError(
            f"features_extractor_class {name} is for dict observations, but"
            f" observations are images: use NatureCNN, or leave it out; {_ENCODER_HINT}"
        )
    # All but the observation space.
    taken = dict(list(_parameters(extractor).items())[1:])
    takes_any = any(one.kind is one.VAR_KEYWORD for one in taken.values())
    unknown = [] if takes_any else [argument for argument in given if argument not in taken]
    if unknown:
        raise UserError(
            f'features_extractor_kwargs has no option "{unknown[0]}": {name} takes'
            f" {', '.join(taken) or 'none'}.{nearest(str(unknown[0]), taken)}"
        )
    for argument, one in taken.items():
        variadic = one.kind in (one.VAR_KEYWORD, one.VAR_POSITIONAL)
        if one.default is one.empty and not variadic and argument not in given:
            raise UserError(f'features_extractor_kwargs lacks "{argument}", which {name} needs')
    if issubclass(extractor, EncoderExtractor):
        encoder = given.get("encoder", "nature")
        check_encoder_arguments(encoder, given.get("encoder_options"), given.get("weights"))


def _check_activation(activation: Any) -> None:
    try:
        # It may draw initial values, which must not change later draws.
        with torch.random.fork_rng(devices=[]):
            made = activation()
            # One that changes the width would not fit the layer after it.
            fits = isinstance(made, nn.Module) and made(torch.zeros(2, 4)).shape == (2, 4)
    except Exception:
        fits = False
    if not fits:
        raise UserError(
            "activation_fn must be a class of activations, such as torch.nn.ReLU, not"
            f" {shown(activation)}"
        )


def _check_optimizer(optimizer: Any, arguments: dict[str, Any]) -> None:
    if not callable(optimizer):
        raise UserError(
            "optimizer_class must be a class of optimizers, such as torch.optim.Adam, not"
            f" {shown(optimizer)}"
        )
    name = getattr(optimizer, "__name__", shown(optimizer))
    if "lr" in arguments:
        raise UserError("optimizer_kwargs must not have lr: set learning_rate of the agent instead")
    if "params" in arguments:
        raise UserError("optimizer_kwargs must not have params: the agent's own are optimized")
    # A weight and a bias, as every network here has them.
    parameters = [nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.zeros(2))]
    try:
        made = optimizer(parameters, lr=1e-3, **arguments)
    except Exception as error:
        given = f" with optimizer_kwargs {shown(arguments)}" if arguments else ""
        raise UserError(
            f"optimizer_class {name}{given} does not work: {' '.join(str(error).split())}"
        ) from error
    if not isinstance(made, torch.optim.Optimizer):
        raise UserError(
            f"optimizer_class must make an optimizer, such as torch.optim.Adam does, not {name}"
        )
    why = "gradients are dense" if isinstance(made, torch.optim.SparseAdam) else ""
    closure = inspect.signature(made.step).parameters.get("closure")
    if closure is not None and closure.default is closure.empty:
        why = "it computes the loss several times in each step"
    if why:
        raise UserError(f"optimizer_class {name} is not supported: {why}; use torch.optim.Adam")


def _check_net_arch(base: type[BasePolicy], net_arch: Any) -> None:
    # An actor-critic may have other layers for each of its heads.
    two_heads = issubclass(base, ActorCriticPolicy)
    layers = [net_arch]
    if two_heads:
        older = isinstance(net_arch, list) and len(net_arch) == 1
        by_head = net_arch[0] if older else net_arch
        if isinstance(by_head, dict) and set(by_head) <= {"pi", "vf"}:
            layers = list(by_head.values())
    for widths in layers:
        if not isinstance(widths, list | tuple) or not all(_is_whole(n) and n >= 1 for n in widths):
            each = " or dict(pi=[64], vf=[64])" if two_heads else ""
            raise UserError(
                f"net_arch must be the widths of hidden layers, [64, 64]{each}, not"
                f" {shown(net_arch)}"
            )


def _as_dict(name: str, value: Any) -> dict[Any, Any]:
    if value is not None and not isinstance(value, Mapping):
        raise UserError(f"{name} must be a dict, not {shown(value)}")
    return dict(value or {})


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _parameters(made: type) -> dict[str, inspect.Parameter]:
    return dict(list(inspect.signature(made.__init__).parameters.items())[1:])  # type: ignore[misc]
