"""Temporal contrast: which observation of a minibatch follows a few steps later.

ATC: Stooke et al. 2021, "Decoupling representation learning from reinforcement learning"
(astooke/rlpyt, ``rlpyt/ul/algos/ul_for_rl/augmented_temporal_contrast.py``).
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from rlcnn.encoders import Encoder
from rlcnn.selfsupervised.views import (
    Objective,
    Views,
    float32,
    follow,
    make_target,
    standardise,
)
from rlcnn.supervised.network import Measures

# Of the source, for Atari.
_CODE, _HIDDEN = 256, 512


class TemporalContrast(Objective):
    """Recognises the observation ``steps`` later among those of the minibatch.

    A linear layer compresses features to codes. The code of an observation goes through a residual
    network and a bilinear form; the other codes come from the target encoder and a target of the
    linear layer. The loss is InfoNCE (:func:`bilinear_logits`).
    """

    measured = ("contrastive/top1",)

    def __init__(self, encoder: Encoder, *, steps: int = 3, decay: float = 0.99) -> None:
        """``decay`` is that of the linear layer's target."""
        super().__init__()
        self.offsets = (0, steps)
        self._decay = decay
        self.compressor = nn.Linear(encoder.features_dim, _CODE)
        self.target_compressor = make_target(self.compressor)
        self.hidden = nn.Linear(_CODE, _HIDDEN)
        self.residual = nn.Linear(_HIDDEN, _CODE)
        self.bilinear = nn.Linear(_CODE, _CODE, bias=False)

    def measure(self, views: Views) -> Measures:
        features, later = views.features(0), views.target_features(self.offsets[1])
        with float32(features.device):
            anchors = self.compressor(standardise(features))
            anchors = anchors + self.residual(self.hidden(anchors).relu())
            with torch.no_grad():
                positives = self.target_compressor(standardise(later))
            logits = bilinear_logits(anchors, positives, self.bilinear.weight)
        own = torch.arange(len(logits), device=logits.device)
        right = (logits.argmax(dim=1) == own).sum()
        return Measures(F.cross_entropy(logits, own), [(right, torch.ones_like(own).sum())])

    def after_update(self) -> None:
        follow(self.target_compressor, self.compressor, self._decay)


def bilinear_logits(
    anchors: torch.Tensor, positives: torch.Tensor, weight: torch.Tensor
) -> torch.Tensor:
    """Logits (batch, batch) of each positive for each anchor, ``anchors W^T positives^T``.

    Anchors and positives are (batch, d), and ``weight`` is (d, d). The right one of each row is on
    the diagonal; InfoNCE (van den Oord et al. 2018) is the cross-entropy of the rows.
    """
    return F.linear(anchors, weight) @ positives.T
