"""The residual network of the fast CIFAR-10 trainings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import nn

from rlcnn.encoders.base import Encoder, check_positive
from rlcnn.encoders.layers import named
from rlcnn.encoders.registry import register_encoder

# Factor on the logits: smaller initial logits give less extreme probabilities.
LOGIT_SCALE = 0.125


def make_unit(in_channels: int, channels: int) -> nn.Sequential:
    """A 3x3 convolution, batch normalisation and ReLU."""
    return named(
        conv=nn.Conv2d(in_channels, channels, kernel_size=3, padding=1, bias=False),
        bn=nn.BatchNorm2d(channels),
        relu=nn.ReLU(),
    )


class Residual(nn.Module):
    """``x + unit(unit(x))``: the ReLU is inside the branch, not after the sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.unit1 = make_unit(channels, channels)
        self.unit2 = make_unit(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.unit2(self.unit1(x))


class Scale(nn.Module):
    """Features times a constant."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor


@register_encoder("resnet9")
class ResNet9Encoder(Encoder):
    """The network of Page 2018, "How to train your ResNet" (myrtle.ai, part 4), whose training won
    DAWNBench on CIFAR-10; up to its global max pooling.

    Convolutions to 64, 128, 256 and 512 channels. 2x2 max pooling follows the last three, and a
    residual branch of two convolutions follows the second and the last. With the source's linear
    layer to 10 classes without bias at 32x32x3: 6,573,120 parameters. The source scales the logits
    by 1/8; here the features are scaled, which is equivalent before such a layer.
    """

    # Smaller images leave one position, and one value of a single image has no batch statistics.
    least_size: ClassVar[int] = 16

    def __init__(self, observation_shape: Sequence[int], *, width: float = 1) -> None:
        """Builds the network for observations (channels, height, width) of at least 16x16.

        ``width`` is a factor on the number of channels everywhere.
        """
        check_positive("width", width, whole=False)
        super().__init__(observation_shape, {"width": width})
        first, second, third, last = (max(1, round(c * width)) for c in (64, 128, 256, 512))
        self.trunk = named(
            prep=make_unit(self.preprocessing.output_shape[0], first),
            layer1=make_unit(first, second),
            pool1=nn.MaxPool2d(2),
            residual1=Residual(second),
            layer2=make_unit(second, third),
            pool2=nn.MaxPool2d(2),
            layer3=make_unit(third, last),
            pool3=nn.MaxPool2d(2),
            residual3=Residual(last),
        )
        self.pool = named(max=nn.AdaptiveMaxPool2d(1), flatten=nn.Flatten())
        self.projection = Scale(LOGIT_SCALE)
        self.features_dim = last
