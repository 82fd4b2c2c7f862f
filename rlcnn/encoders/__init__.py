"""Encoders: uint8 observations in, feature vectors out; built by name with ``create_encoder``."""

from rlcnn.encoders.base import Encoder, EncoderSpec, Preprocessing
from rlcnn.encoders.impala import ImpalaEncoder
from rlcnn.encoders.lenet import LeNetEncoder
from rlcnn.encoders.nature import NatureEncoder
from rlcnn.encoders.registry import (
    create_encoder,
    encoder_options,
    list_encoders,
    register_encoder,
)

__all__ = [
    "Encoder",
    "EncoderSpec",
    "ImpalaEncoder",
    "LeNetEncoder",
    "NatureEncoder",
    "Preprocessing",
    "create_encoder",
    "encoder_options",
    "list_encoders",
    "register_encoder",
]
