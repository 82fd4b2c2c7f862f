"""Encoders by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from envs.errors import UserError, nearest
from rlcnn.encoders.architectures import find_architecture, list_architectures
from rlcnn.encoders.backbones import BackboneEncoder, split_name
from rlcnn.encoders.base import Encoder

EncoderClass = TypeVar("EncoderClass", bound=type[Encoder])

_ENCODERS: dict[str, type[Encoder]] = {}


def register_encoder(name: str) -> Callable[[EncoderClass], EncoderClass]:
    """Class decorator that makes an encoder known to ``create_encoder`` as ``name``.

    The class is called as ``cls(observation_shape, **options)``; the keyword-only parameters of
    its constructor are the options a user may set.

    Raises:
        ValueError: the name is taken.
    """

    def register(cls: EncoderClass) -> EncoderClass:
        if name in _ENCODERS:
            raise ValueError(f'an encoder "{name}" is already registered: {_ENCODERS[name]}')
        cls.name = name
        _ENCODERS[name] = cls
        return cls

    return register


def list_encoders() -> list[str]:
    """Names of all registered encoders, sorted; backbones are named beside them."""
    return sorted(_ENCODERS)


def encoder_options(name: str) -> dict[str, Any]:
    """The options of an encoder and their defaults.

    Raises:
        UserError: no encoder of that name.
    """
    parameters = inspect.signature(_encoder_class(name)).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def with_frame_channels(
    name: str, options: Mapping[str, Any], channels: int | None
) -> dict[str, Any]:
    """Options of an encoder, with the channels of a frame where it takes them and they are unset.

    Without them an encoder for RGB images takes three grey frames for one in colour.

    Args:
        name: of the encoder.
        options: for ``create_encoder``.
        channels: of one frame; None where that is not known.

    Raises:
        UserError: no encoder of that name.
    """
    takes_them = "frame_channels" in encoder_options(name)
    if not takes_them or channels not in (1, 3) or options.get("frame_channels") is not None:
        return dict(options)
    return {**options, "frame_channels": channels}


def create_encoder(name: str, observation_shape: Sequence[int], **options: Any) -> Encoder:
    """Builds a freshly initialised encoder.

    Args:
        name: one of ``list_encoders()``, or a classification network of torchvision or timm, cut at
            a node of it: "resnet18", "resnet18:layer2", "timm:resnet18:layer2"; see
            :class:`rlcnn.encoders.backbones.BackboneEncoder`.
        observation_shape: (channels, height, width) of the uint8 observations.
        options: see ``encoder_options(name)``.

    Raises:
        UserError: an unknown name, node or option (the nearest known one is named), a value that an
            option does not take, or an image too small for the encoder.
    """
    cls = _encoder_class(name)
    known = encoder_options(name)
    for option in options:
        if option not in known:
            raise UserError(
                f'encoder "{name}" has no option "{option}" (it has: {", ".join(known)}).'
                f"{nearest(option, known)}"
            )
    if issubclass(cls, BackboneEncoder):
        return cls(observation_shape, name, **options)
    return cls(observation_shape, **options)


def why_unknown(name: str) -> str | None:
    """Why there is no encoder of that name, and the nearest one; None where there is one.

    A node is not looked for: that needs the network itself.
    """
    if name in _ENCODERS:
        return None
    network, node = split_name(name)
    if network in _ENCODERS:
        return f'only networks of torchvision and timm are cut at a node, not "{network}".'
    try:
        if find_architecture(network) is not None:
            return None
    except UserError as error:
        return str(error)
    # Only they are cut at a node.
    near = nearest(network, [*list_architectures(), *([] if node else list_encoders())])
    if node:
        near = near.replace('"?', f':{node}"?')
    return (
        f"expected one of {', '.join(list_encoders())}, a classification network of torchvision, "
        f"as NAME or NAME:NODE, or timm:NAME.{near}"
    )


def _encoder_class(name: str) -> type[Encoder]:
    if name in _ENCODERS:
        return _ENCODERS[name]
    if reason := why_unknown(name):
        raise UserError(f'unknown encoder "{name}": {reason}')
    return BackboneEncoder
