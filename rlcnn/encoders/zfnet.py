"""AlexNet with the changes that its visualisation suggested."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import ClassVar

from torch import nn

from rlcnn.encoders.alexnet_2012 import ResponseNorm, check_dropout, initialise_he, linear_layers
from rlcnn.encoders.base import Encoder, check_positive, trunk_output_shape
from rlcnn.encoders.registry import register_encoder


@register_encoder("zfnet")
class ZFNetEncoder(Encoder):
    """ZFNet (Zeiler & Fergus 2013, "Visualizing and understanding convolutional networks", figure
    3), up to its second layer of 4096.

    AlexNet in one tower, with 7x7 filters at stride 2 in the first layer and stride 2 in the
    second, pooling before response normalisation. With a linear layer to 1000 classes at
    224x224x3: 62,357,608 parameters; maps of 110, 55, 26, 13, 13 and 6 pixels a side, as in the
    figure. The paper gives no constants of the normalisation; those of AlexNet are used.

    Initialised as ``alexnet_2012``.
    """

    least_size: ClassVar[int] = 47

    def __init__(
        self, observation_shape: Sequence[int], *, features_dim: int = 4096, dropout: float = 0.5
    ) -> None:
        """Builds the network for observations (channels, height, width) of at least 47x47.

        ``features_dim`` and ``dropout`` are those of ``alexnet_2012``.
        """
        check_positive("features_dim", features_dim)
        check_dropout(dropout)
        super().__init__(observation_shape, {"features_dim": features_dim, "dropout": dropout})
        self.features_dim = features_dim
        # Rounding up halves 110 to 55 and 26 to 13 pixels.
        self.trunk = nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(self.preprocessing.output_shape[0], 96, 7, stride=2, padding=1),
                relu1=nn.ReLU(),
                pool1=nn.MaxPool2d(3, stride=2, ceil_mode=True),
                norm1=ResponseNorm(),
                conv2=nn.Conv2d(96, 256, 5, stride=2),
                relu2=nn.ReLU(),
                pool2=nn.MaxPool2d(3, stride=2, ceil_mode=True),
                norm2=ResponseNorm(),
                conv3=nn.Conv2d(256, 384, 3, padding=1),
                relu3=nn.ReLU(),
                conv4=nn.Conv2d(384, 384, 3, padding=1),
                relu4=nn.ReLU(),
                conv5=nn.Conv2d(384, 256, 3, padding=1),
                relu5=nn.ReLU(),
                pool5=nn.MaxPool2d(3, stride=2, ceil_mode=True),
            )
        )
        self.pool = nn.Flatten()
        flat = math.prod(trunk_output_shape(self.trunk, self.preprocessing.output_shape))
        self.projection = linear_layers(flat, features_dim, dropout)
        initialise_he(self)
