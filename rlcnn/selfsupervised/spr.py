"""SPR: an encoder learns to predict its own latents some steps ahead.

Schwarzer et al. 2021, "Data-efficient reinforcement learning with self-predictive representations";
without rewards, as in SGI (Schwarzer et al. 2021, "Pretraining representations for data-efficient
reinforcement learning"; mila-iqia/SGI, ``src/models.py`` and ``src/networks.py``).
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from envs.errors import UserError
from rlcnn.encoders import Encoder
from rlcnn.encoders.base import output_shape
from rlcnn.encoders.frames import FrameEncoder
from rlcnn.selfsupervised.views import Objective, Views, float32, standardise
from rlcnn.supervised.network import Measures

# The predictor then has 67 million weights.
_MOST_FEATURES = 8192

# Norms below it are not scaled to 1, as in the source.
_LEAST_NORM = 1e-3


class SPR(Objective):
    """Predicts the target encoder's features of the next observations from the first and the
    actions.

    A transition model moves the feature maps of the first observation one step on with each action.
    Of the maps at each step the encoder's own pooling and projection make features, from which a
    linear layer predicts those that the target encoder makes of the real observation.

    The projection is the encoder's, as the source's is the first layer of its Q head: an agent
    loads both. The source rescales maps to [0, 1]; here features are standardised instead
    (:func:`~rlcnn.selfsupervised.views.standardise`), since an agent's maps are not rescaled.
    """

    def __init__(self, encoder: Encoder, actions: int, *, jumps: int = 5) -> None:
        """Adds the transition model and the predictor.

        ``actions`` is the number of different actions, and ``jumps`` that of steps ahead.

        Raises:
            UserError: the encoder's trunk makes no feature maps, or the encoder has too many
                features.
        """
        super().__init__()
        if encoder.features_dim > _MOST_FEATURES:
            raise UserError(
                f"--objectives spr predicts each feature from all, and the encoder has"
                f" {encoder.features_dim:,}: expected at most {_MOST_FEATURES:,}. A learned"
                " projection makes 512, --encoder-options projection learned; pooling makes fewer,"
                " too"
            )
        self.offsets = tuple(range(jumps + 1))
        self.transition = TransitionModel(_map_channels(encoder), actions)
        self.predictor = nn.Linear(encoder.features_dim, encoder.features_dim)

    def measure(self, views: Views) -> Measures:
        maps, losses = views.maps(0), []
        for offset in self.offsets[1:]:
            maps = self.transition(maps, views.batch.actions[:, offset - 1])
            features = views.project(maps)
            with float32(maps.device):
                predicted = self.predictor(standardise(features))
                losses.append(cosine_loss(predicted, standardise(views.target_features(offset))))
        return Measures(torch.stack(losses).mean(), [])


class TransitionModel(nn.Module):
    """Feature maps and actions -> the feature maps of the next step.

    Convolution, ReLU, BatchNorm, convolution, ReLU; each action is a further channel, of ones.
    """

    def __init__(self, channels: int, actions: int, hidden: int = 64) -> None:
        """``channels`` are those of the maps; ``hidden`` those between the convolutions."""
        super().__init__()
        self.actions = actions
        self.first = nn.Conv2d(channels + actions, hidden, 3, padding=1)
        self.norm = nn.BatchNorm2d(hidden)
        self.second = nn.Conv2d(hidden, channels, 3, padding=1)

    def forward(self, maps: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        """Maps (batch, channels, height, width) and int64 (batch,) -> maps of the same shape."""
        planes = F.one_hot(actions, self.actions)[:, :, None, None].to(maps.dtype)
        planes = planes.expand(-1, -1, *maps.shape[2:])
        hidden = self.norm(self.first(torch.cat([maps, planes], dim=1)).relu())
        return self.second(hidden).relu()


def cosine_loss(predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean over a batch of the squared distance of unit vectors, ``2 - 2 * cosine``, a scalar.

    Both are float32 (batch, d).
    """
    one, other = (F.normalize(vectors, dim=1, eps=_LEAST_NORM) for vectors in (predicted, target))
    return (one - other).square().sum(dim=1).mean()


def _map_channels(encoder: Encoder) -> int:
    shape = output_shape(encoder.trunk, encoder.preprocessing.output_shape)
    if len(shape) != 3:
        raise UserError(
            f'--objectives spr needs an encoder whose trunk makes feature maps: that of "'
            f'{encoder.name}" makes values of shape {shape}. Cut it at an earlier node, or leave'
            " spr out"
        )
    return shape[0] * (encoder.stack if isinstance(encoder, FrameEncoder) else 1)
