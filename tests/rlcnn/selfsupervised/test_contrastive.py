"""ATC's loss against one written out in NumPy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from support.frame_sequences import standardised

from rlcnn.encoders import Encoder
from rlcnn.selfsupervised.contrastive import TemporalContrast
from rlcnn.selfsupervised.network import SelfSupervisedNetwork
from rlcnn.selfsupervised.views import SequenceBatch

MakeBatch = Callable[..., SequenceBatch]


def linear(layer: torch.nn.Linear, values: np.ndarray) -> np.ndarray:
    bias = 0 if layer.bias is None else layer.bias.detach().numpy()
    return values @ layer.weight.detach().numpy().T + bias


def reference(contrast: TemporalContrast, features: np.ndarray, later: np.ndarray) -> float:
    """InfoNCE with a bilinear form, pair by pair."""
    anchors = linear(contrast.compressor, standardised(features))
    anchors = anchors + linear(contrast.residual, np.maximum(linear(contrast.hidden, anchors), 0))
    positives = linear(contrast.target_compressor, standardised(later))
    form = contrast.bilinear.weight.detach().numpy()
    losses = []
    for row, anchor in enumerate(anchors):
        scores = np.array([positive @ form @ anchor for positive in positives])
        losses.append(np.log(np.exp(scores - scores[row]).sum()))
    return float(np.mean(losses))


def test_the_loss_equals_a_plain_version(encoder: Encoder, make_batch: MakeBatch) -> None:
    contrast = TemporalContrast(encoder, steps=3)
    network = SelfSupervisedNetwork(encoder, {"contrastive": (contrast, 1.0)})
    with torch.no_grad():
        for parameter in (*network.target.parameters(), *contrast.target_compressor.parameters()):
            parameter += 0.1 * torch.randn_like(parameter)
    batch = make_batch(contrast.offsets, count=5)
    assert batch.offsets == (0, 3)
    with torch.no_grad():
        features, later = encoder(batch.at(0)), network.target(batch.at(3))
    expected = reference(contrast, features.double().numpy(), later.double().numpy())
    assert network.measure(batch).loss.item() == pytest.approx(expected, rel=1e-4)


def test_targets_have_no_gradient(encoder: Encoder, make_batch: MakeBatch) -> None:
    contrast = TemporalContrast(encoder)
    network = SelfSupervisedNetwork(encoder, {"contrastive": (contrast, 1.0)})
    batch = make_batch(contrast.offsets)
    batch.observations.requires_grad_()
    network.measure(batch).loss.backward()
    assert batch.observations.grad is not None
    first, later = batch.observations.grad.abs().sum(dim=(0, 2, 3, 4)).tolist()
    assert first > 0
    assert later == 0
    targets = (*network.target.parameters(), *contrast.target_compressor.parameters())
    assert all(p.grad is None and not p.requires_grad for p in targets)


def test_the_compressors_target_follows_it(encoder: Encoder) -> None:
    contrast = TemporalContrast(encoder, decay=0.75)
    before = contrast.target_compressor.weight.clone()
    torch.nn.init.zeros_(contrast.compressor.weight)
    contrast.after_update()
    torch.testing.assert_close(contrast.target_compressor.weight, 0.75 * before)
