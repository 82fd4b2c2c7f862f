"""Inverse dynamics: which action lies between two consecutive observations."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from rlcnn.encoders import Encoder
from rlcnn.selfsupervised.views import Objective, Views, float32, standardise
from rlcnn.supervised.network import Measures

_HIDDEN = 256


class InverseDynamics(Objective):
    """Predicts the action between two consecutive observations from the features of both.

    Pathak et al. 2017, "Curiosity-driven exploration by self-supervised prediction", section 2.2.
    Both observations have gradients. SGI, which combines it with SPR, takes the target encoder's
    features of the second one instead, and also steps whose first features were predicted.
    """

    offsets = (0, 1)
    measured = ("inverse/top1",)

    def __init__(self, encoder: Encoder, actions: int) -> None:
        """Adds a head for ``actions`` different actions."""
        super().__init__()
        self.hidden = nn.Linear(2 * encoder.features_dim, _HIDDEN)
        self.head = nn.Linear(_HIDDEN, actions)

    def measure(self, views: Views) -> Measures:
        pair, taken = [views.features(offset) for offset in self.offsets], views.batch.actions[:, 0]
        with float32(taken.device):
            features = torch.cat([standardise(each) for each in pair], dim=1)
            logits = self.head(self.hidden(features).relu())
        right = (logits.argmax(dim=1) == taken).sum()
        return Measures(F.cross_entropy(logits, taken), [(right, torch.ones_like(taken).sum())])
