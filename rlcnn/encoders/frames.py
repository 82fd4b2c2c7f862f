"""Encoders for stacked frames whose network is made for one RGB image."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Literal, get_args

import torch
from torch import fx, nn

from envs.errors import UserError
from rlcnn.encoders.base import Encoder, check_choice, check_positive, checked_shape, output_shape
from rlcnn.encoders.layers import NO_PREFIX, PrefixTokens, RandomProjection, make_pool, named
from rlcnn.encoders.preprocessing import ObservationShape, Preprocessing

Stacking = Literal["per_frame", "inflated"]
Projection = Literal["learned", "random", "none"]

# Common sides of photographs for networks, and of frames of games.
_USUAL_SIDES = (32, 64, 84, 96, 112, 128, 160, 192, 224, 240, 256, 288, 299, 336, 384, 448, 512)

# Errors of a network for images of an unsupported size.
_SIZE_ERRORS = (RuntimeError, AssertionError, ValueError)


class FrameEncoder(Encoder):
    """An encoder whose trunk is a network for RGB images.

    By default ("per_frame") ``forward`` has two steps, so that a frozen trunk can run once per
    frame and its features can be stored::

        features = encoder.encode_frames(frames)           # (n, frame_features)
        encoder.combine(features.unflatten(0, (-1, stack)))  # (n / stack, features_dim)

    ``combine`` contains every trained layer except the trunk. With "inflated" the whole stack is
    one image of many channels: ``stack`` is 1 and ``frame_shape`` the observation's.
    """

    stack: int  # number of images in an observation
    frame_shape: ObservationShape  # (channels, height, width) of an image
    frame_features: int  # length of the feature vector of an image

    def __init__(
        self,
        observation_shape: Sequence[int],
        options: dict[str, Any],
        *,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        """Builds the preprocessing; ``attach`` adds the other parts.

        Observations are (frames * channels, height, width); the channels of a frame are adjacent.
        ``options`` contain ``frame_channels`` (1, 3 or None, which takes 3 if the observation's
        channels are a multiple of it), ``stacking`` and ``resize``. ``mean`` and ``std`` are those
        of the network's RGB images, for values in [0, 1]. A UserError refuses other observations,
        and invalid options.
        """
        channels, height, width = checked_shape(observation_shape)
        frame_channels = options["frame_channels"]
        if frame_channels is None:
            frame_channels = 1 if channels % 3 else 3
        if frame_channels not in (1, 3) or channels % frame_channels:
            raise UserError(
                f"frame_channels must be 1 (grey) or 3 (RGB) and divide the observation's "
                f"{channels} channels, not {frame_channels!r}."
            )
        check_choice("stacking", options["stacking"], get_args(Stacking))
        if options["resize"] is not None:
            check_positive("resize", options["resize"])
        if not isinstance(options["differences"], bool):
            raise UserError(f"differences must be True or False, not {options['differences']!r}.")
        per_frame = options["stacking"] == "per_frame"
        self.stack = channels // frame_channels if per_frame else 1
        self.frame_shape = (channels // self.stack, height, width)
        grey_to_rgb = per_frame and frame_channels == 1
        if frame_channels == 1 and not grey_to_rgb:
            # Filters summed over RGB have one input channel, so one mean and std.
            mean, std = [sum(mean) / len(mean)], [sum(std) / len(std)]
        preprocessing = Preprocessing(
            self.frame_shape,
            mean=mean,
            std=std,
            resize=options["resize"],
            grey_to_rgb=grey_to_rgb,
        )
        options = {**options, "frame_channels": frame_channels}
        super().__init__(observation_shape, options, preprocessing)

    def attach(self, trunk: nn.Module, prefix: PrefixTokens = NO_PREFIX) -> None:
        """Adds a trunk, and pooling, differences and projection by the options.

        The trunk maps images (n, channels, height, width) of ``preprocessing.output_shape`` to
        feature maps (n, channels, height, width), tokens (n, tokens, d) or vectors (n, d). Tokens
        begin with those of ``prefix``. A UserError says that it does not accept such images, or
        that an option does not fit it.
        """
        options = self.options
        check_choice("projection", options["projection"], get_args(Projection))
        check_positive("features_dim", options["features_dim"])
        seed = options["projection_seed"]
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
            raise UserError(f"projection_seed must be a whole number from 0, not {seed!r}.")
        if options["differences"] and self.stack < 2:
            raise UserError("differences need at least two frames, each encoded alone.")
        self.trunk = trunk
        self.pool, self.frame_features = make_pool(options["pooling"], self._trunk_shape(), prefix)
        if options["projection"] == "random":
            random = RandomProjection(self.frame_features, options["features_dim"], seed)
            self.pool.add_module("random", random)
            self.frame_features = options["features_dim"]
        layers: dict[str, nn.Module] = {}
        vectors = self.stack
        if options["differences"]:
            layers["differences"] = Differences()
            vectors = 2 * (self.stack - 1)
        layers["flatten"] = nn.Flatten()
        self.features_dim = vectors * self.frame_features
        if options["projection"] == "learned":
            # As in PIE-G and DrQ-v2, so that heads start at the same scale for all trunks.
            layers["linear"] = nn.Linear(self.features_dim, options["features_dim"])
            self.features_dim = options["features_dim"]
            layers["norm"] = nn.LayerNorm(self.features_dim)
            layers["tanh"] = nn.Tanh()
        self.projection = named(**layers)

    def encode_frames(self, frames: torch.Tensor) -> torch.Tensor:
        """Encodes frames, each alone: uint8 (n, *frame_shape) -> (n, frame_features)."""
        return self.pool(self.trunk(self.preprocessing(frames)))

    def combine(self, features: torch.Tensor) -> torch.Tensor:
        """(batch, stack, frame_features), oldest frame first -> (batch, features_dim)."""
        return self.projection(features)

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """As :meth:`Encoder.forward`; the oldest frame comes first."""
        frames = split_frames(observations, self.observation_shape, self.stack)
        return self.combine(self.encode_frames(frames).unflatten(0, (-1, self.stack)))

    def storage_layout(self, depth: int) -> tuple[int, int]:
        if self.stack == depth:
            return depth, self.frame_features
        return 1, self.stack * self.frame_features

    def encode_for_storage(self, frames: torch.Tensor) -> torch.Tensor:
        if frames.shape[1:] == self.frame_shape:
            return self.encode_frames(frames)
        frames = split_frames(frames, self.observation_shape, self.stack)
        return self.encode_frames(frames).unflatten(0, (-1, self.stack)).flatten(1)

    def features_of_stored(self, stored: torch.Tensor) -> torch.Tensor:
        return self.combine(stored.unflatten(1, (self.stack, -1)))

    def pretrained_parts(self) -> list[nn.Module]:
        return [self.preprocessing, self.trunk, self.pool]

    def _trunk_shape(self) -> tuple[int, ...]:
        shape = self.preprocessing.output_shape
        try:
            return output_shape(self.trunk, shape)
        except _SIZE_ERRORS as error:
            given, option = max(shape[1:]), ""
            # The next larger side of square images that the trunk accepts, or any.
            for side in sorted(_USUAL_SIDES, key=lambda side: (side < given, side)):
                with suppress(*_SIZE_ERRORS):
                    output_shape(self.trunk, (shape[0], side, side))
                    option = f", --encoder-options resize {side}"
                    break
            raise UserError(
                f'{shape[1]}x{shape[2]} pixels do not go through encoder "{self.name}": its option '
                f'"resize" gives them a size that does{option}.'
            ) from error


class Differences(nn.Module):
    """Features of the newer frames, and their differences from the frame before.

    As in PIE-G (Yuan et al. 2022, "Pre-trained image encoder for generalizable visual reinforcement
    learning"), after Shang et al. 2021, "Reinforcement learning with latent flow". PIE-G's code
    stops the older frame's gradient, which has no effect for a frozen trunk.
    """

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(batch, stack, d) -> (batch, 2 * (stack - 1), d)."""
        newer = features[:, 1:]
        return torch.cat((newer, newer - features[:, :-1]), dim=1)


def split_frames(
    observations: torch.Tensor, observation_shape: ObservationShape, stack: int
) -> torch.Tensor:
    """Stacks to frames: (batch, stack * c, height, width) -> (batch * stack, c, height, width)."""
    if observations.shape[1:] != observation_shape:
        raise ValueError(
            f"this encoder was built for observations (batch, *{observation_shape}), "
            f"not {tuple(observations.shape)}"
        )
    return observations.unflatten(1, (stack, -1)).flatten(0, 1)


# A leaf for torch.fx, whose proxies have no shapes.
fx.wrap("split_frames")


def inflate(weight: torch.Tensor, frames: int, frame_channels: int) -> torch.Tensor:
    """Converts filters for RGB images to filters for stacks of frames.

    (out, 3, height, width) -> (out, frames * frame_channels, height, width). A stack of equal
    frames gives the same output as the RGB image. A grey frame is an image with three equal
    channels, as in timm's ``adapt_input_conv`` for one channel (whose rule for other numbers would
    use a fourth grey frame as a second red channel).
    """
    per_frame = weight.sum(dim=1, keepdim=True) if frame_channels == 1 else weight
    return per_frame.repeat(1, frames, 1, 1) / frames
