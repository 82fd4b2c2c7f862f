"""The network of the Nature DQN paper."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, get_args

from torch import nn

from rlcnn.encoders.activations import GAINS, Activation, make_activation
from rlcnn.encoders.base import (
    Encoder,
    check_choice,
    checked_shape,
    given,
    initialise_orthogonally,
    output_shape,
)
from rlcnn.encoders.blocks import BlockedConv2d
from rlcnn.encoders.layers import Flatten, check_features_dim, make_projection, named
from rlcnn.encoders.normalisation import Norm, norm_layers
from rlcnn.encoders.preprocessing import InputNorm, Preprocessing
from rlcnn.encoders.registry import register_encoder


@register_encoder("nature")
class NatureEncoder(Encoder):
    """Three convolutions and a linear layer (Mnih et al. 2015, "Human-level control through deep
    reinforcement learning", Methods), the standard for Atari agents.

    1,684,128 parameters and 9.3 million multiply-accumulates at 84x84x4; 1,727,392 parameters with
    ``norm="layer"``, 1,685,472 with "layer_channels".

    Weights are initialised orthogonally with gain sqrt(2) (1.245 before ELU,
    :data:`~rlcnn.encoders.activations.GAINS`), biases with zero, as in PPO's reference
    implementation (OpenAI baselines, ``a2c/utils.py`` and ``common/models.py:nature_cnn``;
    detail 2 of Huang et al. 2022, "The 37 implementation details of PPO").
    """

    least_size: ClassVar[int] = 36
    optional_projection: ClassVar[bool] = True

    def __init__(
        self,
        observation_shape: Sequence[int],
        *,
        features_dim: int = 512,
        norm: Norm = "none",
        activation: Activation = "relu",
        input_norm: InputNorm = "none",
    ) -> None:
        """Builds the network.

        Args:
            observation_shape: (channels, height, width), at least 36x36.
            features_dim: width of the linear layer; 0 leaves it out, for heads with hidden layers
                of their own.
            norm: normalisation before each activation, see
                :data:`~rlcnn.encoders.normalisation.Norm`; "none" as published.
            activation: "relu" as published, or "elu".
            input_norm: normalisation of pixels, see
                :data:`~rlcnn.encoders.preprocessing.InputNorm`; "none" scales them by 1/255.
        """
        check_features_dim(features_dim)
        check_choice("norm", norm, get_args(Norm))
        check_choice("activation", activation, get_args(Activation))
        check_choice("input_norm", input_norm, get_args(InputNorm))
        # The first filters are scaled instead of the pixels, which are many more.
        running = input_norm == "running"
        preprocessing = Preprocessing(
            checked_shape(observation_shape), block=4, scaled=running, running=running
        )
        options = {
            "features_dim": features_dim,
            **given(norm=norm, activation=activation, input_norm=input_norm),
        }
        super().__init__(observation_shape, options, preprocessing)
        layers: dict[str, nn.Module] = {}
        channels = self.preprocessing.image_shape[0]
        convolutions = (
            BlockedConv2d(
                channels, 32, kernel_size=8, stride=4, input_scale=1.0 if running else 1 / 255
            ),
            nn.Conv2d(32, 64, kernel_size=4, stride=2),
            nn.Conv2d(64, 64, kernel_size=3, stride=1),
        )
        shape: tuple[int, ...] = self.preprocessing.output_shape
        for number, convolution in enumerate(convolutions, start=1):
            layers[f"conv{number}"] = convolution
            shape = output_shape(convolution, shape)
            layers |= norm_layers(norm, f"norm{number}", shape)
            layers[f"{activation}{number}"] = make_activation(activation)
        self.trunk = named(**layers)
        self.pool = Flatten()
        self.projection, self.features_dim = make_projection(
            self.trunk_values(), features_dim, norm, activation
        )
        initialise_orthogonally(self, GAINS[activation])
