"""LeNet-5 for any input size."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import ClassVar, Literal, get_args

import torch
from torch import nn

from rlcnn.encoders.base import Encoder, check_choice, check_positive, initialise_orthogonally
from rlcnn.encoders.layers import named
from rlcnn.encoders.registry import register_encoder

Variant = Literal["tanh", "lecun1998", "course"]

# LeCun et al. 1998, table I: the maps of S2 that are inputs of each of the 16 maps of C3.
C3_TABLE = (
    (0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5),
    (0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5),
    (0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5),
    (0, 1, 2, 3, 4, 5),
)  # fmt: skip


class ScaledTanh(nn.Module):
    """``1.7159 tanh(2x / 3)`` (LeCun et al. 1998, equation 6 and appendix A)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 1.7159 * torch.tanh(x * (2 / 3))


class Subsampling(nn.Module):
    """Sum over 2x2 pixels, times a trained coefficient, plus a trained bias for each map.

    It is initialised as average pooling.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.sum = nn.AvgPool2d(kernel_size=2, divisor_override=1)
        self.coefficient = nn.Parameter(torch.full((channels, 1, 1), 0.25))
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, channels, height, width) -> (batch, channels, height // 2, width // 2)."""
        return self.sum(x) * self.coefficient + self.bias


class SparseC3(nn.Module):
    """Convolution 5x5 from 6 to 16 maps; ``C3_TABLE`` lists the inputs of each output map.

    Maps with the same number of inputs form one grouped convolution. The table is sorted by that
    number, so concatenated outputs keep its order.
    """

    inputs: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.from3 = self._grouped(3)
        self.from4 = self._grouped(4)
        self.from6 = self._grouped(6)
        inputs = torch.tensor([source for sources in C3_TABLE for source in sources])
        self.register_buffer("inputs", inputs, persistent=False)
        self.splits = [conv.in_channels for conv in (self.from3, self.from4, self.from6)]

    @staticmethod
    def _grouped(fan: int) -> nn.Conv2d:
        maps = sum(len(sources) == fan for sources in C3_TABLE)
        return nn.Conv2d(fan * maps, maps, kernel_size=5, groups=maps)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, 6, height, width) -> (batch, 16, height - 4, width - 4)."""
        three, four, six = x.index_select(1, self.inputs).split(self.splits, dim=1)
        return torch.cat((self.from3(three), self.from4(four), self.from6(six)), dim=1)


# Activation, pooling of so many maps, and the gain that keeps the variance through the activation;
# the scaled tanh is made for 1 (LeCun et al. 1998, "Efficient BackProp", section 4.4). The
# U(-2.4, 2.4) / fan-in of the LeNet-5 paper, which trained with second derivatives, would make
# features thousands of times smaller.
_PARTS: dict[Variant, tuple[type[nn.Module], Callable[[int], nn.Module], float]] = {
    "tanh": (nn.Tanh, lambda maps: nn.AvgPool2d(kernel_size=2), 5 / 3),
    "lecun1998": (
        ScaledTanh,
        lambda maps: named(sample=Subsampling(maps), squash=ScaledTanh()),
        1,
    ),
    "course": (nn.ReLU, lambda maps: nn.MaxPool2d(kernel_size=2), math.sqrt(2)),
}


@register_encoder("lenet")
class LeNetEncoder(Encoder):
    """LeNet-5 up to its layer F6 (LeCun et al. 1998, "Gradient-based learning applied to document
    recognition", section II.B), without the layer of classes.

    The paper's C5 is a 5x5 convolution that covers the 5x5 maps of a 32x32 image. Here it is a
    linear layer over all positions: the same at 32x32, and defined at any other size. With a
    linear layer to 10 classes at 32x32x1: 61,706 parameters.
    """

    least_size: ClassVar[int] = 16

    def __init__(
        self, observation_shape: Sequence[int], *, features_dim: int = 84, variant: Variant = "tanh"
    ) -> None:
        """Builds the network.

        Args:
            observation_shape: (channels, height, width), at least 16x16.
            features_dim: width of F6.
            variant: "tanh": tanh, average pooling, and a full C3. "lecun1998": the paper's scaled
                tanh, pooling with trained coefficients and the sparse C3 of table I; 60,000
                parameters at 32x32x1. "course": ReLU and max pooling, as taught today; 44,426
                parameters with 10 classes at 28x28x1, without padding.
        """
        check_positive("features_dim", features_dim)
        check_choice("variant", variant, get_args(Variant))
        super().__init__(observation_shape, {"features_dim": features_dim, "variant": variant})
        self.features_dim = features_dim
        channels = self.preprocessing.output_shape[0]
        squash, pool, gain = _PARTS[variant]
        self.trunk = named(
            c1=nn.Conv2d(channels, 6, kernel_size=5),
            c1_squash=squash(),
            s2=pool(6),
            c3=SparseC3() if variant == "lecun1998" else nn.Conv2d(6, 16, kernel_size=5),
            c3_squash=squash(),
            s4=pool(16),
        )
        self.pool = nn.Flatten()
        self.projection = named(
            c5=nn.Linear(self.trunk_values(), 120),
            c5_squash=squash(),
            f6=nn.Linear(120, features_dim),
            f6_squash=squash(),
        )
        initialise_orthogonally(self, gain)
