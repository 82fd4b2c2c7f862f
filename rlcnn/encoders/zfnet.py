"""AlexNet with the changes that its visualisation suggested."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from rlcnn.encoders.alexnet_2012 import AlexNet2012Encoder, ResponseNorm
from rlcnn.encoders.layers import named
from rlcnn.encoders.registry import register_encoder


@register_encoder("zfnet")
class ZFNetEncoder(AlexNet2012Encoder):
    """ZFNet (Zeiler & Fergus 2013, "Visualizing and understanding convolutional networks", figure
    3), up to its second layer of 4096.

    AlexNet in one tower, with 7x7 filters at stride 2 in the first layer and stride 2 in the
    second, pooling before response normalisation. With a linear layer to 1000 classes at
    224x224x3: 62,357,608 parameters; maps of 110, 55, 26, 13, 13 and 6 pixels a side, as in the
    figure. The paper gives no constants of the normalisation; those of AlexNet are used.

    Options and initialisation are those of ``alexnet_2012``.
    """

    least_size: ClassVar[int] = 47

    @staticmethod
    def _make_trunk(channels: int) -> nn.Sequential:
        # Rounding up halves 110 to 55 and 26 to 13 pixels.
        return named(
            conv1=nn.Conv2d(channels, 96, 7, stride=2, padding=1),
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
