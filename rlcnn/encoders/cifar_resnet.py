"""The residual networks for CIFAR with their shortcut variants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, get_args

import torch
from torch import nn
from torch.nn import functional as F

from envs.errors import UserError
from rlcnn.encoders.base import Encoder, check_choice, output_shape
from rlcnn.encoders.layers import make_pool, named
from rlcnn.encoders.registry import register_encoder

Shortcut = Literal[
    "identity", "none", "constant", "exclusive_gate", "shortcut_gate", "conv", "dropout"
]

STAGE_CHANNELS = (16, 32, 64)


class PaddedIdentity(nn.Module):
    """Option A of He et al. 2016a: every ``stride``-th pixel, and zeros for the added channels."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        # Half of the zero channels on each side, as in the authors' CIFAR code.
        added = channels - in_channels
        self.padding = (0, 0, 0, 0, added // 2, added - added // 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, in_channels, height, width) -> (batch, channels, height / s, width / s)."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], self.padding)


class ResidualUnit(nn.Module):
    """Two 3x3 convolutions plus a shortcut, ReLU after the sum (He et al. 2016a, figure 2).

    Without a shortcut they are two layers of the plain network.
    """

    def __init__(
        self, in_channels: int, channels: int, stride: int, shortcut: Shortcut, gate_bias: float
    ) -> None:
        super().__init__()
        self.residual = named(
            conv1=_conv(in_channels, channels, 3, stride),
            bn1=nn.BatchNorm2d(channels),
            relu=nn.ReLU(),
            conv2=_conv(channels, channels, 3),
            bn2=nn.BatchNorm2d(channels),
        )
        self.kind = shortcut
        if shortcut == "conv":
            self.shortcut: nn.Module = named(
                conv=_conv(in_channels, channels, 1, stride), bn=nn.BatchNorm2d(channels)
            )
        elif shortcut == "none" or (in_channels == channels and stride == 1):
            self.shortcut = nn.Identity()
        else:
            self.shortcut = PaddedIdentity(in_channels, channels, stride)
        if shortcut == "dropout":
            self.dropout = nn.Dropout(0.5)
        if shortcut in ("exclusive_gate", "shortcut_gate"):
            # For each channel and position.
            conv = _conv(in_channels, channels, 1, stride, bias=True)
            assert conv.bias is not None
            nn.init.constant_(conv.bias, gate_bias)
            self.gate = named(conv=conv, sigmoid=nn.Sigmoid())
        self.relu = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, in_channels, height, width) -> (batch, channels, height / s, width / s)."""
        residual = self.residual(x)
        if self.kind == "none":
            return self.relu(residual)
        shortcut = self.shortcut(x)
        match self.kind:
            case "constant":
                residual, shortcut = 0.5 * residual, 0.5 * shortcut
            case "exclusive_gate":
                gate = self.gate(x)
                residual, shortcut = gate * residual, (1 - gate) * shortcut
            case "shortcut_gate":
                shortcut = (1 - self.gate(x)) * shortcut
            case "dropout":
                shortcut = self.dropout(shortcut)
        return self.relu(residual + shortcut)


@register_encoder("cifar_resnet")
class CifarResNetEncoder(Encoder):
    """The residual network for CIFAR (He et al. 2016a, "Deep residual learning for image
    recognition", section 4.2), up to its global average pooling.

    A 3x3 convolution to 16 channels, then three stages of n residual units with 16, 32 and 64
    channels; the last two stages start with stride 2. These are 6n + 2 layers with the classifier.
    Shortcuts have no parameters (option A). With a linear layer to 10 classes at 32x32x3: 269,722
    parameters at depth 20, 853,018 at 56, 1,727,962 at 110.

    ``shortcut`` selects a replacement of the identity from He et al. 2016b, "Identity mappings in
    deep residual networks" (section 3, figure 2 and table 1); at depth 110 the identity is best.
    Without shortcuts it is the plain network of He et al. 2016a (figure 6, left), of the same
    size, which becomes worse with depth.
    """

    # With smaller images the last stage would compute mostly on padding.
    least_size: ClassVar[int] = 8

    def __init__(
        self,
        observation_shape: Sequence[int],
        *,
        depth: int = 20,
        shortcut: Shortcut = "identity",
        gate_bias: float = -6,
        pooling: str = "mean",
    ) -> None:
        """Builds the network.

        Args:
            observation_shape: (channels, height, width), at least 8x8.
            depth: 6n + 2, counting the classifier: 20, 32, 44, 56, 110 ...
            shortcut: "identity", as published; "none": the plain network; "constant": identity and
                residual times 0.5; "exclusive_gate": the residual times a gate g(x), the identity
                times 1 - g(x); "shortcut_gate": the identity times 1 - g(x); "conv": 1x1
                convolutions with batch normalisation; "dropout": the identity with dropout 0.5.
            gate_bias: initial bias of the gates. At -6 a gate first passes nearly the whole
                identity. The paper's exclusive gates were best at -6, and its shortcut-only gates
                much worse at 0.
            pooling: "mean", as published, or another of ``rlcnn.encoders.layers.make_pool``.

        Raises:
            UserError: an option is not valid.
        """
        if isinstance(depth, bool) or not isinstance(depth, int) or depth < 8 or depth % 6 != 2:
            near = max(1, round((depth - 2) / 6)) * 6 + 2 if isinstance(depth, int) else 20
            raise UserError(f"depth must be 6n + 2, not {depth!r}. Did you mean {near}?")
        check_choice("shortcut", shortcut, get_args(Shortcut))
        if isinstance(gate_bias, bool) or not isinstance(gate_bias, (int, float)):
            raise UserError(f"gate_bias must be a number, not {gate_bias!r}.")
        options = {"depth": depth, "shortcut": shortcut, "gate_bias": gate_bias, "pooling": pooling}
        super().__init__(observation_shape, options)
        in_channels = STAGE_CHANNELS[0]
        layers: dict[str, nn.Module] = {
            "conv": _conv(self.preprocessing.output_shape[0], in_channels, 3),
            "bn": nn.BatchNorm2d(in_channels),
            "relu": nn.ReLU(),
        }
        for stage, channels in enumerate(STAGE_CHANNELS, start=1):
            units: dict[str, nn.Module] = {}
            for index in range(1, (depth - 2) // 6 + 1):
                stride = 2 if stage > 1 and index == 1 else 1
                units[f"unit{index}"] = ResidualUnit(
                    in_channels, channels, stride, shortcut, gate_bias
                )
                in_channels = channels
            layers[f"stage{stage}"] = named(**units)
        self.trunk = named(**layers)
        maps = output_shape(self.trunk, self.preprocessing.output_shape)
        self.pool, self.features_dim = make_pool(pooling, maps)
        self.projection = nn.Identity()


def _conv(
    in_channels: int, channels: int, kernel_size: int, stride: int = 1, bias: bool = False
) -> nn.Conv2d:
    padding = kernel_size // 2
    conv = nn.Conv2d(in_channels, channels, kernel_size, stride, padding=padding, bias=bias)
    # He et al. 2015, "Delving deep into rectifiers", equation 10, as in both papers.
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    return conv
