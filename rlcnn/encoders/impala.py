"""The small residual network of IMPALA."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import ClassVar, Literal, get_args

import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm as normalise_spectrum

from envs.errors import UserError
from rlcnn.encoders.activations import GAINS, Activation, make_activation
from rlcnn.encoders.base import (
    Encoder,
    check_choice,
    check_positive,
    checked_shape,
    given,
    initialise_orthogonally,
    output_shape,
)
from rlcnn.encoders.layers import Flatten, check_features_dim, make_projection, named
from rlcnn.encoders.normalisation import Norm, norm_layers
from rlcnn.encoders.preprocessing import InputNorm, Preprocessing
from rlcnn.encoders.registry import register_encoder

Pooling = Literal["flatten", "mean", "adaptive_max"]
SpectralNorm = Literal["none", "residual"]

SECTION_CHANNELS = (16, 32, 32)

# Six residual branches of two convolutions share one unit of variance.
BLOCK_GAIN = math.sqrt(1 / math.sqrt(6))

# Side of the grid of ``pooling="adaptive_max"``.
MAX_POOL_SIDE = 6


class ResidualBlock(nn.Sequential):
    """``x + conv(relu(conv(relu(x))))``, 3x3; ``shape`` is (channels, height, width) of maps."""

    def __init__(
        self,
        shape: tuple[int, ...],
        norm: Norm,
        spectral_norm: SpectralNorm,
        activation: Activation,
    ) -> None:
        layers: dict[str, nn.Module] = {}
        for number in (1, 2):
            layers |= norm_layers(norm, f"norm{number}", shape)
            layers[f"{activation}{number}"] = make_activation(activation)
            layers[f"conv{number}"] = nn.Conv2d(shape[0], shape[0], kernel_size=3, padding=1)
        super().__init__(OrderedDict(layers))
        initialise_orthogonally(self, BLOCK_GAIN)
        if spectral_norm == "residual":
            # Divides the filters, as a matrix (out, in * 9), by their largest singular value.
            for name in ("conv1", "conv2"):
                normalise_spectrum(self.get_submodule(name))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + super().forward(x)


def make_section(
    input_shape: tuple[int, ...],
    channels: int,
    norm: Norm,
    spectral_norm: SpectralNorm,
    activation: Activation,
) -> nn.Sequential:
    """A convolution, pooling to half the sides (rounded up), and two residual blocks."""
    conv = nn.Conv2d(input_shape[0], channels, kernel_size=3, padding=1)
    initialise_orthogonally(conv, gain=1)
    shape = (channels, *(-(-side // 2) for side in input_shape[1:]))
    return named(
        conv=conv,
        pool=nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
        block1=ResidualBlock(shape, norm, spectral_norm, activation),
        block2=ResidualBlock(shape, norm, spectral_norm, activation),
    )


@register_encoder("impala")
class ImpalaEncoder(Encoder):
    """The larger network of Espeholt et al. 2018, "IMPALA" (figure 3, right), without its LSTM.

    Three sections of 16, 32 and 32 channels with 15 convolutions in all, a ReLU, and a linear
    layer to 256. At 84x84x4: 1,089,232 parameters, 54 million multiply-accumulates. With the
    options of BTR (Clark et al. 2025, "Beyond the Rainbow"), ``width=2, pooling="adaptive_max",
    spectral_norm="residual", features_dim=0``: 2,304 features, 389,024 parameters, 205 million.

    Weights are initialised orthogonally, biases with zero. The gains are those of the reference
    implementation of Cobbe et al. 2020, "Phasic policy gradient": residual branches start small, so
    features have about the norm of those of ``nature``, and a policy head starts close to uniform.
    With the usual gain sqrt(2) everywhere, the norm would be over twenty times larger.
    """

    # With smaller images the last section would compute mostly on padding.
    least_size: ClassVar[int] = 8
    optional_projection: ClassVar[bool] = True

    def __init__(
        self,
        observation_shape: Sequence[int],
        *,
        features_dim: int = 256,
        width: float = 1,
        pooling: Pooling = "flatten",
        norm: Norm = "none",
        spectral_norm: SpectralNorm = "none",
        activation: Activation = "relu",
        input_norm: InputNorm = "none",
    ) -> None:
        """Builds the network.

        Args:
            observation_shape: (channels, height, width), at least 8x8.
            features_dim: width of the last, linear layer; 0 leaves it out, for heads with hidden
                layers of their own, as in BTR.
            width: factor on the channels of every section (Cobbe et al. 2019, "Quantifying
                generalization in reinforcement learning", use 4 and more; BTR 2).
            pooling: input of the linear layer: "flatten", as published, is every position; "mean"
                is the global average (Impoola: Trumpp et al. 2025, "The power of average pooling
                for image-based deep reinforcement learning"); "adaptive_max" is the greatest value
                in each cell of a 6x6 grid (BTR), so images must be at least 41x41.
            norm: normalisation before each activation, see
                :data:`~rlcnn.encoders.normalisation.Norm`; "none" as published.
            spectral_norm: "residual" divides the filters of each residual convolution by their
                spectral norm, estimated by one step of the power method in every training call
                (Miyato et al. 2018); in BTR's code as here, no other layer.
            activation: "relu" as published, or "elu".
            input_norm: normalisation of pixels, see
                :data:`~rlcnn.encoders.preprocessing.InputNorm`; "none" scales them by 1/255.
        """
        check_features_dim(features_dim)
        check_positive("width", width, whole=False)
        check_choice("pooling", pooling, get_args(Pooling))
        check_choice("norm", norm, get_args(Norm))
        check_choice("spectral_norm", spectral_norm, get_args(SpectralNorm))
        check_choice("activation", activation, get_args(Activation))
        check_choice("input_norm", input_norm, get_args(InputNorm))
        options = {
            "features_dim": features_dim,
            "width": width,
            "pooling": pooling,
            **given(
                norm=norm,
                spectral_norm=spectral_norm,
                activation=activation,
                input_norm=input_norm,
            ),
        }
        preprocessing = Preprocessing(
            checked_shape(observation_shape), running=input_norm == "running"
        )
        super().__init__(observation_shape, options, preprocessing)

        layers: dict[str, nn.Module] = {}
        shape: tuple[int, ...] = self.preprocessing.output_shape
        for index, base in enumerate(SECTION_CHANNELS, start=1):
            channels = max(1, round(base * width))
            section = make_section(shape, channels, norm, spectral_norm, activation)
            layers[f"section{index}"] = section
            shape = output_shape(section, shape)
        layers |= norm_layers(norm, "norm", shape)
        layers[activation] = make_activation(activation)
        self.trunk = named(**layers)

        if pooling == "adaptive_max" and min(shape[1:]) < MAX_POOL_SIDE:
            raise UserError(
                f'pooling "adaptive_max" makes a {MAX_POOL_SIDE}x{MAX_POOL_SIDE} grid, finer than'
                f" the feature maps: {shape[1]}x{shape[2]}. Use larger images."
            )
        self.pool: nn.Module = Flatten()
        if pooling != "flatten":
            mean, largest = nn.AdaptiveAvgPool2d(1), nn.AdaptiveMaxPool2d(MAX_POOL_SIDE)
            grid = {"mean": mean} if pooling == "mean" else {"max": largest}
            self.pool = named(**grid, flatten=Flatten())
        flat = math.prod(output_shape(self.pool, shape))
        self.projection, self.features_dim = make_projection(flat, features_dim, norm, activation)
        initialise_orthogonally(self.projection, GAINS[activation])
