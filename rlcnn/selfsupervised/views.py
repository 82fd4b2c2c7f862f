"""Encodings of a minibatch of sequences, shared by the objectives."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from itertools import chain
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from rlcnn.encoders import Encoder
from rlcnn.encoders.frames import FrameEncoder, split_frames
from rlcnn.supervised.network import Measures

_EPSILON = 1e-5


class SequenceBatch(NamedTuple):
    """Sequences of consecutive observations.

    Attributes:
        observations: (batch, len(offsets), channels, height, width), uint8 or, augmented, float32
            of 0 to 280.5: those at ``offsets`` steps after the first of each sequence.
        actions: int64 (batch, steps): the action between each observation and the next.
        labels: int64 (batch, tasks) of the first observations.
        offsets: the steps of the observations; the first is 0.
    """

    observations: torch.Tensor
    actions: torch.Tensor
    labels: torch.Tensor
    offsets: tuple[int, ...]

    def at(self, offset: int) -> torch.Tensor:
        """The observations ``offset`` steps after the first, (batch, channels, height, width)."""
        return self.observations[:, self.offsets.index(offset)]


class Views:
    """Encodings of a minibatch; each is computed once, when first asked for.

    ``maps`` are the outputs of the trunk, and ``features`` those of the whole encoder. The target's
    have no gradient.
    """

    def __init__(self, encoder: Encoder, target: Encoder, batch: SequenceBatch) -> None:
        self.batch = batch
        self._encoder, self._target = encoder, target
        self._maps: dict[int, torch.Tensor] = {}
        self._features: dict[int, torch.Tensor] = {}
        self._target_features: dict[int, torch.Tensor] = {}

    def maps(self, offset: int) -> torch.Tensor:
        """Feature maps (batch, channels, height, width) of the observations at an offset."""
        if offset not in self._maps:
            self._maps[offset] = encode_maps(self._encoder, self.batch.at(offset))
        return self._maps[offset]

    def features(self, offset: int) -> torch.Tensor:
        """Features (batch, features_dim) of the observations at an offset."""
        if offset not in self._features:
            self._features[offset] = self.project(self.maps(offset))
        return self._features[offset]

    def project(self, maps: torch.Tensor) -> torch.Tensor:
        """The features of feature maps such as those of :meth:`maps`."""
        return project_maps(self._encoder, maps)

    @torch.no_grad()
    def target_features(self, offset: int) -> torch.Tensor:
        """The target encoder's features (batch, features_dim)."""
        if offset not in self._target_features:
            self._target_features[offset] = self._target(self.batch.at(offset))
        return self._target_features[offset]


class Objective(nn.Module, ABC):
    """Something to learn from sequences; its own layers compute in float32.

    Attributes:
        offsets: the observations of a sequence that it uses.
        measured: names of the ratios of :meth:`measure`.
    """

    offsets: tuple[int, ...]
    measured: tuple[str, ...] = ()

    @abstractmethod
    def measure(self, views: Views) -> Measures:
        """The loss of a minibatch, and ratios."""

    def after_update(self) -> None:
        """Called after each optimiser step."""


def encode_maps(encoder: Encoder, observations: torch.Tensor) -> torch.Tensor:
    """Feature maps of observations, (batch, channels, height, width).

    The maps of an encoder that encodes each frame alone are joined along the channels.
    """
    if isinstance(encoder, FrameEncoder):
        frames = split_frames(observations, encoder.observation_shape, encoder.stack)
        maps = encoder.trunk(encoder.preprocessing(frames))
        return maps.unflatten(0, (-1, encoder.stack)).flatten(1, 2)
    return encoder.trunk(encoder.preprocessing(observations))


def project_maps(encoder: Encoder, maps: torch.Tensor) -> torch.Tensor:
    """Features (batch, features_dim) of the maps of :func:`encode_maps`."""
    if isinstance(encoder, FrameEncoder):
        maps = maps.unflatten(1, (encoder.stack, -1)).flatten(0, 1)
        return encoder.combine(encoder.pool(maps).unflatten(0, (-1, encoder.stack)))
    return encoder.projection(encoder.pool(maps))


def standardise(features: torch.Tensor) -> torch.Tensor:
    """Features (batch, d) as directions, with mean 0 and variance 1 over the minibatch, float32.

    Each vector is scaled to length sqrt(d) first. Most of a game's screen never changes, and
    augmentation varies the intensity of all of it: without this the vectors are nearly equal, and
    most of their differences are the augmentation's. The source of SPR scales feature maps to
    [0, 1] for each image, and SGI's encoder has BatchNorm; an agent's encoder here has neither.
    """
    directions = features.shape[1] ** 0.5 * F.normalize(features.float(), dim=1)
    variance, mean = torch.var_mean(directions, dim=0, correction=0)
    return (directions - mean) * torch.rsqrt(variance + _EPSILON)


def make_target(network: nn.Module) -> nn.Module:
    """A copy that is not trained, for :func:`follow`."""
    return copy.deepcopy(network).requires_grad_(False)


@torch.no_grad()
def follow(target: nn.Module, network: nn.Module, decay: float) -> None:
    """Moves a target's parameters and statistics towards a network's.

    ``target = decay * target + (1 - decay) * network``. Integers, such as BatchNorm's counter of
    batches, are copied.
    """
    pairs = list(
        zip(
            chain(target.parameters(), target.buffers()),
            chain(network.parameters(), network.buffers()),
            strict=True,
        )
    )
    floats = [pair for pair in pairs if pair[0].is_floating_point()]
    torch._foreach_lerp_([to for to, _ in floats], [of for _, of in floats], 1 - decay)
    for to, of in pairs:
        if not to.is_floating_point():
            to.copy_(of)


def float32(device: torch.device) -> torch.autocast:
    """Inside, layers compute in float32 even if the encoder runs under autocast."""
    return torch.autocast(device.type, enabled=False)
