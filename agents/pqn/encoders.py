"""The normalisation that PQN expects of an encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlcnn.encoders.registry import encoder_options


def default_encoder_options(encoder: str, weights: object) -> dict[str, Any]:
    """An encoder's options where the user gives none: layer normalisation as in the authors' code.

    PQN has no target network and is stable through layer normalisation (Gallici et al. 2024,
    section 3). An encoder without the option ``norm`` has none, and neither has one with
    pretrained ``weights``, which were trained without.

    Raises:
        UserError: the encoder is unknown.
    """
    if "norm" not in encoder_options(encoder):
        return {}
    return {"norm": "layer_channels" if weights in (None, "none") else "none"}


def notes_on_encoder(encoder: str, options: Mapping[str, Any]) -> list[str]:
    """A line where the encoder has no layer normalisation."""
    if options.get("norm", "none") != "none":
        return []
    wanted = f"encoder {encoder} has none; nature and impala have it"
    if "norm" in encoder_options(encoder):
        wanted = "--encoder-options norm layer_channels gives it"
    return [f"PQN learns stably with layer normalisation in its encoder: {wanted}"]
