"""The small residual network of IMPALA."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal, get_args

import torch
from torch import nn

from rlcnn.encoders.base import Encoder, check_choice, check_positive, initialise_orthogonally
from rlcnn.encoders.layers import Flatten, named
from rlcnn.encoders.registry import register_encoder

Pooling = Literal["flatten", "mean"]

SECTION_CHANNELS = (16, 32, 32)

# Six residual branches of two convolutions share one unit of variance.
BLOCK_GAIN = math.sqrt(1 / math.sqrt(6))


class ResidualBlock(nn.Module):
    """``x + conv(relu(conv(relu(x))))``, 3x3, as many channels out as in."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(channels, channels, kernel_size=3, padding=1)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, kernel_size=3, padding=1)
        initialise_orthogonally(self, BLOCK_GAIN)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv2(self.relu2(self.conv1(self.relu1(x))))


def make_section(in_channels: int, channels: int) -> nn.Sequential:
    """A convolution, pooling to half the sides (rounded up), and two residual blocks."""
    conv = nn.Conv2d(in_channels, channels, kernel_size=3, padding=1)
    initialise_orthogonally(conv, gain=1)
    return named(
        conv=conv,
        pool=nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
        block1=ResidualBlock(channels),
        block2=ResidualBlock(channels),
    )


@register_encoder("impala")
class ImpalaEncoder(Encoder):
    """The larger network of Espeholt et al. 2018, "IMPALA" (figure 3, right), without its LSTM.

    Three sections of 16, 32 and 32 channels with 15 convolutions in all, a ReLU, and a linear
    layer to 256. At 84x84x4: 1,089,232 parameters, 54 million multiply-accumulates.

    Weights are initialised orthogonally, biases with zero. The gains are those of the reference
    implementation of Cobbe et al. 2020, "Phasic policy gradient": residual branches start small, so
    features have about the norm of those of ``nature``, and a policy head starts close to uniform.
    With the usual gain sqrt(2) everywhere, the norm would be over twenty times larger.
    """

    # With smaller images the last section would compute mostly on padding.
    least_size: ClassVar[int] = 8

    def __init__(
        self,
        observation_shape: Sequence[int],
        *,
        features_dim: int = 256,
        width: float = 1,
        pooling: Pooling = "flatten",
    ) -> None:
        """Builds the network.

        Args:
            observation_shape: (channels, height, width), at least 8x8.
            features_dim: width of the last, linear layer.
            width: factor on the channels of every section (Cobbe et al. 2019, "Quantifying
                generalization in reinforcement learning", use 4 and more).
            pooling: input of the linear layer: "flatten", as published, is every position; "mean"
                is the global average (Impoola: Trumpp et al. 2025, "The power of average pooling
                for image-based deep reinforcement learning").
        """
        check_positive("features_dim", features_dim)
        check_positive("width", width, whole=False)
        check_choice("pooling", pooling, get_args(Pooling))
        options = {"features_dim": features_dim, "width": width, "pooling": pooling}
        super().__init__(observation_shape, options)
        self.features_dim = features_dim

        layers: dict[str, nn.Module] = {}
        channels = self.preprocessing.output_shape[0]
        for index, base in enumerate(SECTION_CHANNELS, start=1):
            out_channels = max(1, round(base * width))
            layers[f"section{index}"] = make_section(channels, out_channels)
            channels = out_channels
        layers["relu"] = nn.ReLU()
        self.trunk = named(**layers)

        if pooling == "mean":
            self.pool = named(mean=nn.AdaptiveAvgPool2d(1), flatten=Flatten())
            flat = channels
        else:
            self.pool = Flatten()
            flat = self.trunk_values()
        self.projection = named(linear=nn.Linear(flat, features_dim), relu=nn.ReLU())
        initialise_orthogonally(self.projection, gain=math.sqrt(2))
