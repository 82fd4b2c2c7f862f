"""Encoders turn uint8 observations into feature vectors; ``create_encoder`` builds them by name.

A new encoder is a file here with a class under ``@register_encoder``, imported below.
"""

from rlcnn.encoders.alexnet_2012 import AlexNet2012Encoder
from rlcnn.encoders.architectures import list_architectures
from rlcnn.encoders.backbones import BackboneEncoder
from rlcnn.encoders.base import Encoder, EncoderSpec
from rlcnn.encoders.cifar_resnet import CifarResNetEncoder
from rlcnn.encoders.frames import FrameEncoder
from rlcnn.encoders.impala import ImpalaEncoder
from rlcnn.encoders.lenet import LeNetEncoder
from rlcnn.encoders.nature import NatureEncoder
from rlcnn.encoders.preprocessing import Preprocessing
from rlcnn.encoders.registry import (
    create_encoder,
    encoder_options,
    list_encoders,
    register_encoder,
    why_unknown,
    with_frame_channels,
)
from rlcnn.encoders.resnet9 import ResNet9Encoder
from rlcnn.encoders.zfnet import ZFNetEncoder

__all__ = [
    "AlexNet2012Encoder",
    "BackboneEncoder",
    "CifarResNetEncoder",
    "Encoder",
    "EncoderSpec",
    "FrameEncoder",
    "ImpalaEncoder",
    "LeNetEncoder",
    "NatureEncoder",
    "Preprocessing",
    "ResNet9Encoder",
    "ZFNetEncoder",
    "create_encoder",
    "encoder_options",
    "list_architectures",
    "list_encoders",
    "register_encoder",
    "why_unknown",
    "with_frame_channels",
]
