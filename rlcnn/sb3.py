"""Encoders as features extractors of plain stable-baselines3."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from envs.errors import UserError
from rlcnn.encoders.base import Encoder
from rlcnn.encoders.freezing import NO_LAYERS, PartlyFrozen, layers_before, pretrained_layers
from rlcnn.encoders.registry import create_encoder
from rlcnn.weights.load import load_into
from rlcnn.weights.origin import Origin
from rlcnn.weights.report import LoadReport

logger = logging.getLogger(__name__)


class EncoderExtractor(PartlyFrozen, BaseFeaturesExtractor):
    """Makes an encoder a features extractor of any stable-baselines3 algorithm.

    ::

        policy_kwargs = dict(
            features_extractor_class=EncoderExtractor,
            features_extractor_kwargs=dict(encoder="impala"),
        )
        PPO("CnnPolicy", env, policy_kwargs=policy_kwargs)

    Encoders scale uint8 themselves; stable-baselines3 gives its features extractors floats, divided
    by 255 or not. The extractor restores the uint8 exactly. Unlike other extractors it keeps its
    weights when PPO and A2C initialise their networks orthogonally (``ortho_init``, on by default).
    """

    encoder: Encoder
    frozen: bool  # whether it is never trained
    load_report: LoadReport | None  # of every tensor of ``weights``; None without weights
    origin: Origin | None  # of its weights; None if they were initialised

    def __init__(
        self,
        observation_space: spaces.Space,
        encoder: str | Encoder = "nature",
        encoder_options: dict[str, Any] | None = None,
        weights: str | Path | None = None,
        normalized_image: bool = False,
        frozen: bool = False,
        unfreeze_from: str | None = None,
        features_dim: int | None = None,
    ) -> None:
        """Builds or copies the encoder.

        Args:
            observation_space: a Box of images (channels, height, width): uint8 of 0..255, or floats
                of [0, 1] or [0, 255] converted from uint8.
            encoder: name of an encoder (``create_encoder``), or a built one, which is copied: DQN
                makes two extractors with the same arguments, which must not share weights.
            encoder_options: options of an encoder given by name.
            weights: to load by ``rlcnn.weights.load_into``: a file, a run's directory or
                "imagenet".
            normalized_image: must be True if the policy has ``normalize_images=False``, as for
                stable-baselines3's ``NatureCNN``; uint8 observations then arrive as floats of
                0..255.
            frozen: whether the pretrained half of the encoder is never trained. The combination of
                frames is trained.
            unfreeze_from: the node from which on the encoder is trained; the layers before it are
                frozen. See :func:`rlcnn.encoders.freezing.layers_before`.
            features_dim: the encoder option of this name, as for stable-baselines3's extractors.

        Raises:
            UserError: the space is not of images, an encoder, option or node is unknown, an encoder
                was built for another observation shape, or weights do not fit.
        """
        shape, high = _image_space(observation_space)
        check_encoder_arguments(encoder, encoder_options, weights)
        if features_dim is not None:
            encoder_options = {**(encoder_options or {}), "features_dim": features_dim}
        if isinstance(encoder, Encoder):
            if encoder_options:
                raise UserError("encoder_options are for an encoder given by name, not one built.")
            if encoder.observation_shape != shape:
                raise UserError(
                    f'encoder "{encoder.name}" was built for observations '
                    f"{encoder.observation_shape}, but the environment's are {shape}."
                )
            encoder = copy.deepcopy(encoder)
        else:
            encoder = create_encoder(encoder, shape, **(encoder_options or {}))
        super().__init__(observation_space, encoder.features_dim)
        self.encoder = encoder
        self.load_report = self.origin = None
        if weights is not None:
            self.load_report = load_into(self.encoder, weights)
            self.origin = self.load_report.origin
            logger.info("%s", self.load_report)
        if frozen and unfreeze_from is not None:
            raise UserError(f'a frozen encoder is not unfrozen from a node, "{unfreeze_from}".')
        self.frozen = frozen
        self._pretrained = pretrained_layers(self.encoder)
        self._before_node = NO_LAYERS
        if unfreeze_from is not None:
            self._before_node = layers_before(self.encoder, unfreeze_from)
        self.set_trainable(not frozen)
        # stable-baselines3 scales only uint8 spaces.
        scaled = high == 1 or (observation_space.dtype == np.uint8 and not normalized_image)
        self._levels = 255 if scaled else 1
        self._range_seen = False

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """Observations (batch, channels, height, width) -> features (batch, features_dim).

        They are uint8, or stable-baselines3's floats; a UserError says if the first of these
        contradict ``normalized_image``.
        """
        if observations.dtype != torch.uint8:
            if not self._range_seen:
                self._check_range(observations)
            observations = (observations * self._levels).round().to(torch.uint8)
        return self.encoder(observations)

    def set_trainable(self, trainable: bool) -> None:
        """Freezes or unfreezes the encoder; repeated calls are cheap.

        True trains all of it, or the part from ``unfreeze_from`` on. False freezes the pretrained
        half with its running statistics of BatchNorm.
        """
        self.freeze(self._before_node if trainable else self._pretrained)

    def apply(self, fn: Callable[[nn.Module], None]) -> Self:
        """Like ``torch.nn.Module.apply``, but ignores stable-baselines3's initialisation.

        It is the last step of an actor-critic policy's construction and would overwrite loaded
        weights.
        """
        if isinstance(fn, partial) and fn.func is BasePolicy.init_weights:
            return self
        return super().apply(fn)

    def _check_range(self, observations: torch.Tensor) -> None:
        # A wrong flag would feed noise to the network, and show only as an agent that does not
        # learn. One check is enough, but not of a black image.
        if torch.compiler.is_compiling() or observations.numel() == 0:
            return
        largest = float(observations.max())
        if self._levels == 255 and largest > 1:
            raise UserError(
                f"observations reach {largest:g} but were expected in [0, 1]: a policy with "
                "normalize_images=False needs normalized_image=True in features_extractor_kwargs."
            )
        if self._levels == 1 and bool((observations != observations.round()).any()):
            raise UserError(
                "observations are fractions but were expected as 0..255: normalized_image=True "
                "belongs to a policy with normalize_images=False."
            )
        self._range_seen = largest > 0


def check_encoder_arguments(encoder: Any, encoder_options: Any, weights: Any) -> None:
    """Refuses arguments of wrong types with a :class:`UserError`."""
    if not isinstance(encoder, str | Encoder):
        kind = encoder.__name__ if isinstance(encoder, type) else type(encoder).__name__
        shown = f"{kind} {encoder}" if isinstance(encoder, int | float) else kind
        raise UserError(
            f'encoder must be a name, such as "impala", or made by create_encoder, not {shown};'
            " a network of your own becomes a subclass of BaseFeaturesExtractor, given as"
            " features_extractor_class"
        )
    if encoder_options is not None and not isinstance(encoder_options, Mapping):
        raise UserError(
            f"encoder_options must be a dict, such as dict(features_dim=256), not"
            f" {' '.join(repr(encoder_options).split())}"
        )
    if weights is not None and not isinstance(weights, str | Path):
        raise UserError(
            'weights must be the path of a file or of a run, or "imagenet", not'
            f" {type(weights).__name__}"
        )


def _image_space(space: spaces.Space) -> tuple[tuple[int, int, int], int]:
    """Shape (channels, height, width) and highest value (1 or 255) of an image space."""
    if isinstance(space, spaces.Box) and len(space.shape) == 3:
        high = float(space.high.max())
        if (space.low == 0).all() and (space.high == high).all() and high in (1, 255):
            channels, height, width = space.shape
            return (channels, height, width), int(high)
    raise UserError(
        "EncoderExtractor needs images: a Box of uint8 (channels, height, width) from 0 to 255, "
        f"not {space}."
    )
