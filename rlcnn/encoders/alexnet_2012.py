"""The two-tower network that won ImageNet in 2012."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import ClassVar

import torch
from torch import nn

from envs.errors import UserError
from rlcnn.encoders.base import Encoder, check_positive, initialise
from rlcnn.encoders.layers import named
from rlcnn.encoders.registry import register_encoder


class ResponseNorm(nn.Module):
    """Local response normalisation across maps (Krizhevsky et al. 2012, section 3.3).

    ``b_i = a_i / (k + alpha * sum_j a_j^2) ^ beta`` over the n maps j nearest to i, with k = 2,
    n = 5, alpha = 1e-4, beta = 0.75. The paper's alpha weighs the sum, torch's (and Caffe's) the
    mean, so torch gets n * alpha.
    """

    def __init__(self, towers: int = 1) -> None:
        """``towers``: groups of maps with separate normalisation."""
        super().__init__()
        self.towers = towers
        self.norm = nn.LocalResponseNorm(size=5, alpha=5 * 1e-4, beta=0.75, k=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.towers == 1:
            return self.norm(x)
        towers = x.unflatten(1, (self.towers, -1)).flatten(0, 1)
        return self.norm(towers).unflatten(0, (-1, self.towers)).flatten(1, 2)


@register_encoder("alexnet_2012")
class AlexNet2012Encoder(Encoder):
    """AlexNet as published (Krizhevsky et al. 2012, "ImageNet classification with deep
    convolutional neural networks", section 3), up to its second layer of 4096.

    Each of two GPUs had half of the maps of each layer: the second, fourth and fifth convolution
    and response normalisation use the maps of their own tower (``groups=2``), the third convolution
    and the linear layers all maps. With a linear layer to 1000 classes at 227x227x3 (the size of
    the paper's 55x55 maps; the paper says 224): 60,965,224 parameters. torchvision's ``alexnet`` is
    a later, narrower network with one tower and without normalisation.

    At other sizes the first linear layer has another number of inputs.

    Weights are initialised by He et al. 2015, biases with zero: with the paper's N(0, 0.01) and
    biases of one, initial features would be nearly constant with a norm of 64.
    """

    least_size: ClassVar[int] = 67

    def __init__(
        self, observation_shape: Sequence[int], *, features_dim: int = 4096, dropout: float = 0.5
    ) -> None:
        """Builds the network for observations (channels, height, width) of at least 67x67.

        ``features_dim`` is the width of the second linear layer, and ``dropout`` the probability
        with which each output of both is zeroed in training mode (section 4.2).
        """
        check_positive("features_dim", features_dim)
        is_number = isinstance(dropout, int | float) and not isinstance(dropout, bool)
        if not is_number or not 0 <= dropout < 1:
            raise UserError(f"dropout must be a number from 0 to below 1, not {dropout!r}.")
        super().__init__(observation_shape, {"features_dim": features_dim, "dropout": dropout})
        self.features_dim = features_dim
        self.trunk = self._make_trunk(self.preprocessing.output_shape[0])
        self.pool = nn.Flatten()
        self.projection = named(
            fc6=nn.Linear(self.trunk_values(), 4096),
            relu6=nn.ReLU(),
            dropout6=nn.Dropout(dropout),
            fc7=nn.Linear(4096, features_dim),
            relu7=nn.ReLU(),
            dropout7=nn.Dropout(dropout),
        )
        # He et al. 2015, equation 10.
        initialise(self, partial(nn.init.kaiming_normal_, nonlinearity="relu"))

    @staticmethod
    def _make_trunk(channels: int) -> nn.Sequential:
        return named(
            conv1=nn.Conv2d(channels, 96, 11, stride=4),
            relu1=nn.ReLU(),
            norm1=ResponseNorm(towers=2),
            pool1=nn.MaxPool2d(3, stride=2),
            conv2=nn.Conv2d(96, 256, 5, padding=2, groups=2),
            relu2=nn.ReLU(),
            norm2=ResponseNorm(towers=2),
            pool2=nn.MaxPool2d(3, stride=2),
            conv3=nn.Conv2d(256, 384, 3, padding=1),
            relu3=nn.ReLU(),
            conv4=nn.Conv2d(384, 384, 3, padding=1, groups=2),
            relu4=nn.ReLU(),
            conv5=nn.Conv2d(384, 256, 3, padding=1, groups=2),
            relu5=nn.ReLU(),
            pool5=nn.MaxPool2d(3, stride=2),
        )
