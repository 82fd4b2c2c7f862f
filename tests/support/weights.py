"""Helpers of tests that load weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from envs.errors import UserError
from rlcnn.encoders import (
    Encoder,
    create_encoder,
)
from rlcnn.weights.load import (
    load_into,
)

SHAPE = (4, 40, 40)

RGB = (3, 40, 40)


def equal(one: Encoder, other: Encoder) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def refusal(path: Path, encoder: Encoder | None = None) -> str:
    """The one line with which a file is refused, and that the encoder is as it was."""
    encoder = encoder or create_encoder("nature", SHAPE)
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    with pytest.raises(UserError) as caught:
        load_into(encoder, path)
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message
