"""The network of the Nature DQN paper."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from torch import nn

from rlcnn.encoders.base import Encoder, check_positive, checked_shape, initialise_orthogonally
from rlcnn.encoders.blocks import BlockedConv2d
from rlcnn.encoders.layers import Flatten, named
from rlcnn.encoders.preprocessing import Preprocessing
from rlcnn.encoders.registry import register_encoder


@register_encoder("nature")
class NatureEncoder(Encoder):
    """Three convolutions and a linear layer (Mnih et al. 2015, "Human-level control through deep
    reinforcement learning", Methods), the standard for Atari agents.

    1,684,128 parameters and 9.3 million multiply-accumulates at 84x84x4.

    Weights are initialised orthogonally with gain sqrt(2), biases with zero, as in PPO's reference
    implementation (OpenAI baselines, ``a2c/utils.py`` and ``common/models.py:nature_cnn``;
    detail 2 of Huang et al. 2022, "The 37 implementation details of PPO").
    """

    least_size: ClassVar[int] = 36

    def __init__(self, observation_shape: Sequence[int], *, features_dim: int = 512) -> None:
        """Builds the network for observations (channels, height, width) of at least 36x36.

        ``features_dim`` is the width of the linear layer.
        """
        check_positive("features_dim", features_dim)
        # The first filters are scaled instead of the pixels, which are many more.
        preprocessing = Preprocessing(checked_shape(observation_shape), block=4, scaled=False)
        super().__init__(observation_shape, {"features_dim": features_dim}, preprocessing)
        self.features_dim = features_dim
        channels = self.preprocessing.image_shape[0]
        self.trunk = named(
            conv1=BlockedConv2d(channels, 32, kernel_size=8, stride=4, input_scale=1 / 255),
            relu1=nn.ReLU(),
            conv2=nn.Conv2d(32, 64, kernel_size=4, stride=2),
            relu2=nn.ReLU(),
            conv3=nn.Conv2d(64, 64, kernel_size=3, stride=1),
            relu3=nn.ReLU(),
        )
        self.pool = Flatten()
        self.projection = named(linear=nn.Linear(self.trunk_values(), features_dim), relu=nn.ReLU())
        initialise_orthogonally(self, gain=math.sqrt(2))
