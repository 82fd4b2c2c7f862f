"""SPR's loss against one written out in NumPy."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from support.frame_sequences import ACTIONS, standardised

from envs.errors import UserError
from rlcnn.encoders import Encoder, create_encoder
from rlcnn.selfsupervised.network import SelfSupervisedNetwork
from rlcnn.selfsupervised.spr import SPR, cosine_loss
from rlcnn.selfsupervised.views import SequenceBatch, encode_maps, project_maps

MakeBatch = Callable[..., SequenceBatch]


def convolve(maps: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """A convolution with zeros around the maps, place by place."""
    padded = np.pad(maps, ((0, 0), (0, 0), (1, 1), (1, 1)))
    out = np.zeros((len(maps), len(weight), *maps.shape[2:]))
    for y in range(maps.shape[2]):
        for x in range(maps.shape[3]):
            patch = padded[:, None, :, y : y + 3, x : x + 3]
            out[:, :, y, x] = (patch * weight).sum(axis=(2, 3, 4)) + bias
    return out


def next_maps(maps: np.ndarray, actions: np.ndarray, spr: SPR) -> np.ndarray:
    parameters = spr.transition.named_parameters()
    layers = {name: value.detach().double().numpy() for name, value in parameters}
    planes = np.zeros((len(maps), len(ACTIONS), *maps.shape[2:]))
    for row, action in enumerate(actions):
        planes[row, action] = 1
    both = np.concatenate([maps, planes], axis=1)
    hidden = np.maximum(convolve(both, layers["first.weight"], layers["first.bias"]), 0)
    # BatchNorm in training: statistics of the minibatch.
    mean = hidden.mean(axis=(0, 2, 3), keepdims=True)
    variance = hidden.var(axis=(0, 2, 3), keepdims=True)
    hidden = (hidden - mean) / np.sqrt(variance + 1e-5)
    hidden = hidden * layers["norm.weight"][:, None, None] + layers["norm.bias"][:, None, None]
    return np.maximum(convolve(hidden, layers["second.weight"], layers["second.bias"]), 0)


def reference(spr: SPR, encoder: Encoder, target: Encoder, batch: SequenceBatch) -> float:
    """The mean over jumps and sequences of the squared distance of unit vectors, in float64."""
    encoder, target = (copy.deepcopy(network).double() for network in (encoder, target))
    weight, bias = (p.detach().double().numpy() for p in spr.predictor.parameters())
    maps = encode_maps(encoder, batch.at(0).double()).detach().numpy()
    distances = []
    for jump in range(1, max(batch.offsets) + 1):
        maps = next_maps(maps, batch.actions[:, jump - 1].numpy(), spr)
        features = project_maps(encoder, torch.from_numpy(maps)).detach().numpy()
        wanted = target(batch.at(jump).double()).detach().numpy()
        predicted = standardised(features) @ weight.T + bias
        for mine, other in zip(predicted, standardised(wanted), strict=True):
            cosine = mine @ other / (np.linalg.norm(mine) * np.linalg.norm(other))
            distances.append(2 - 2 * cosine)
    return float(np.mean(distances))


@pytest.mark.parametrize("jumps", [1, 5])
def test_the_loss_equals_a_plain_version(
    jumps: int, encoder: Encoder, make_batch: MakeBatch
) -> None:
    spr = SPR(encoder, len(ACTIONS), jumps=jumps)
    network = SelfSupervisedNetwork(encoder, {"spr": (spr, 1.0)})
    with torch.no_grad():
        # Another target than the encoder, and a norm that is not its start.
        for parameter in (*network.target.parameters(), *spr.transition.norm.parameters()):
            parameter += 0.1 * torch.randn_like(parameter)
    batch = make_batch(spr.offsets)
    expected = reference(spr, encoder, network.target, batch)
    assert network.measure(batch).loss.item() == pytest.approx(expected, rel=1e-5)


def test_the_cosine_loss_is_0_for_equal_and_4_for_opposite_directions() -> None:
    vectors = torch.tensor([[3.0, 4.0], [0.5, 0.0]])
    assert cosine_loss(vectors, 2 * vectors).item() == pytest.approx(0, abs=1e-12)
    assert cosine_loss(vectors, -vectors).item() == pytest.approx(4)
    assert cosine_loss(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])).item() == 2


def test_targets_have_no_gradient(encoder: Encoder, make_batch: MakeBatch) -> None:
    spr = SPR(encoder, len(ACTIONS), jumps=2)
    network = SelfSupervisedNetwork(encoder, {"spr": (spr, 1.0)})
    batch = make_batch(spr.offsets)
    batch.observations.requires_grad_()
    network.measure(batch).loss.backward()
    assert batch.observations.grad is not None
    first, *later = batch.observations.grad.abs().sum(dim=(0, 2, 3, 4)).tolist()
    assert first > 0
    assert later == [0, 0]
    assert all(p.grad is None and not p.requires_grad for p in network.target.parameters())
    assert all(p.grad is not None and p.grad.any() for p in encoder.parameters())


def test_the_actions_reach_the_loss(encoder: Encoder, make_batch: MakeBatch) -> None:
    spr = SPR(encoder, len(ACTIONS), jumps=2)
    network = SelfSupervisedNetwork(encoder, {"spr": (spr, 1.0)})
    batch = make_batch(spr.offsets)
    other = batch._replace(actions=(batch.actions + 1) % len(ACTIONS))
    assert network.measure(batch).loss.item() != network.measure(other).loss.item()


def test_an_encoder_that_encodes_frames_alone_is_split_and_joined(make_batch: MakeBatch) -> None:
    torch.manual_seed(0)
    options = {"projection": "learned", "features_dim": 8, "frame_channels": 1, "resize": 32}
    encoder = create_encoder("squeezenet1_1:features.2", (2, 16, 16), **options)
    observations = torch.randint(256, (3, 2, 16, 16), dtype=torch.uint8)
    maps = encode_maps(encoder, observations)
    assert maps.shape[:2] == (3, 2 * 64)
    torch.testing.assert_close(project_maps(encoder, maps), encoder(observations))
    spr = SPR(encoder, len(ACTIONS), jumps=1)
    network = SelfSupervisedNetwork(encoder, {"spr": (spr, 1.0)})
    assert network.measure(make_batch((0, 1))).loss.isfinite()


def test_a_trunk_without_maps_is_refused() -> None:
    encoder = create_encoder("vit_b_16:encoder.layers.encoder_layer_0", (3, 224, 224))
    with pytest.raises(UserError, match="needs an encoder whose trunk makes feature maps"):
        SPR(encoder, 3)


def test_more_features_than_can_be_predicted_are_refused() -> None:
    options = {"projection": "none", "frame_channels": 1, "resize": 96}
    encoder = create_encoder("squeezenet1_1:features.2", (4, 84, 84), **options)
    with pytest.raises(UserError, match="expected at most 8,192"):
        SPR(encoder, 3)
