"""The registry of encoders by name."""

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
    """Class decorator that registers an encoder for ``create_encoder``.

    ``create_encoder`` calls ``cls(observation_shape, **options)``; the keyword-only parameters of
    the constructor are the user's options.
    """

    def register(cls: EncoderClass) -> EncoderClass:
        if name in _ENCODERS:
            raise ValueError(f'an encoder "{name}" is already registered: {_ENCODERS[name]}')
        cls.name = name
        _ENCODERS[name] = cls
        return cls

    return register


def list_encoders() -> list[str]:
    """Names of all registered encoders, sorted, without backbones."""
    return sorted(_ENCODERS)


def encoder_options(name: str) -> dict[str, Any]:
    """The options of an encoder and their defaults; a UserError for an unknown name."""
    parameters = inspect.signature(_encoder_class(name)).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def has_optional_projection(name: str) -> bool:
    """Whether ``features_dim`` 0 leaves out the encoder's last, linear layer.

    A UserError refuses an unknown name.
    """
    return _encoder_class(name).optional_projection


def with_frame_channels(
    name: str, options: Mapping[str, Any], channels: int | None
) -> dict[str, Any]:
    """Adds ``frame_channels`` to an encoder's options, if it has this option and it is not set.

    Without it an encoder for RGB images takes three grey frames for one frame in colour.
    ``channels`` is None if it is unknown. A UserError refuses an unknown name.
    """
    has_option = "frame_channels" in encoder_options(name)
    if not has_option or channels not in (1, 3) or options.get("frame_channels") is not None:
        return dict(options)
    return {**options, "frame_channels": channels}


def create_encoder(name: str, observation_shape: Sequence[int], **options: Any) -> Encoder:
    """Builds a freshly initialised encoder.

    Args:
        name: one of ``list_encoders()``, or a classification network of torchvision or timm, cut at
            a node: "resnet18", "resnet18:layer2", "timm:resnet18:layer2"; see
            :class:`rlcnn.encoders.backbones.BackboneEncoder`.
        observation_shape: (channels, height, width) of the uint8 observations.
        options: see ``encoder_options(name)``.

    Raises:
        UserError: a name, node or option is unknown (the message names the nearest), an option is
            not valid, or the image is too small for the encoder.
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
    """Why no encoder has this name, or None; the node is not checked, as it needs the network."""
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
    # Only networks of libraries have nodes.
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
