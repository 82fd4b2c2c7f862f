"""How stacked frames meet a network that was made for one RGB image."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import fx, nn

from envs.errors import UserError
from rlcnn.encoders.base import (
    Encoder,
    ObservationShape,
    Preprocessing,
    check_choice,
    check_positive,
    checked_shape,
    output_shape,
)
from rlcnn.encoders.layers import RandomProjection, make_pool

Stacking = Literal["per_frame", "inflated"]
Projection = Literal["learned", "random", "none"]

# Sides that networks for photographs take, and those of frames of games.
_USUAL_SIDES = (32, 64, 84, 96, 112, 128, 160, 192, 224, 240, 256, 288, 299, 336, 384, 448, 512)

# What a network may raise for images of a size that it does not take.
_NO_WAY_THROUGH = (RuntimeError, AssertionError, ValueError)


class FrameEncoder(Encoder):
    """An encoder whose trunk is a network for RGB images.

    Per frame, which is the default, ``forward`` is two steps, so that whoever keeps the trunk
    frozen can run it once per frame and store what it made of it::

        features = encoder.encode_frames(frames)           # (n, frame_features)
        encoder.combine(features.unflatten(0, (-1, stack)))  # (n / stack, features_dim)

    Everything that is trained beside the trunk lies in ``combine``. Inflated, the whole stack is
    one image of many channels: ``stack`` is 1 and ``frame_shape`` the observation's.

    Attributes:
        stack: images that one observation consists of.
        frame_shape: (channels, height, width) of one of them.
        frame_features: length of the feature vector of one of them.
    """

    stack: int
    frame_shape: ObservationShape
    frame_features: int

    def __init__(
        self,
        observation_shape: Sequence[int],
        options: dict[str, Any],
        *,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        """Makes the preprocessing; ``attach`` adds the rest once there is a trunk.

        Args:
            observation_shape: (frames * channels, height, width), the channels of a frame side by
                side.
            options: of the subclass, among them ``frame_channels`` (1, 3 or None, which takes 3
                where the observation's channels are a multiple of it), ``stacking`` and ``resize``.
            mean: of the RGB images the network was made for, for values in [0, 1].
            std: likewise.

        Raises:
            UserError: the observations are no stack of such frames, or an option has a value that
                it does not take.
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
            # Filters summed over RGB see one channel, which can be scaled by one mean and std only.
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

    def attach(self, trunk: nn.Module) -> None:
        """Puts pooling, differences and projection behind a trunk, by the options.

        Args:
            trunk: images (n, channels, height, width) of ``preprocessing.output_shape`` -> feature
                maps (n, channels, height, width), tokens (n, tokens, d) or vectors (n, d).

        Raises:
            UserError: such images do not go through the trunk, or an option does not fit it.
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
        self.pool, self.frame_features = make_pool(options["pooling"], self._trunk_shape())
        if options["projection"] == "random":
            width = options["features_dim"]
            self.pool.add_module(
                "random", RandomProjection(self.frame_features, width, options["projection_seed"])
            )
            self.frame_features = width
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        vectors = self.stack
        if options["differences"]:
            layers["differences"] = Differences()
            vectors = 2 * (self.stack - 1)
        layers["flatten"] = nn.Flatten()
        self.features_dim = vectors * self.frame_features
        if options["projection"] == "learned":
            # As behind PIE-G's and DrQ-v2's encoders: whatever the trunk, heads start at one scale.
            layers["linear"] = nn.Linear(self.features_dim, options["features_dim"])
            self.features_dim = options["features_dim"]
            layers["norm"] = nn.LayerNorm(self.features_dim)
            layers["tanh"] = nn.Tanh()
        self.projection = nn.Sequential(layers)

    def encode_frames(self, frames: torch.Tensor) -> torch.Tensor:
        """Encodes frames, each alone.

        Args:
            frames: uint8 (n, *frame_shape).

        Returns:
            (n, frame_features).
        """
        return self.pool(self.trunk(self.preprocessing(frames)))

    def combine(self, features: torch.Tensor) -> torch.Tensor:
        """Makes one feature vector of those of a stack's frames.

        Args:
            features: (batch, stack, frame_features), oldest frame first.

        Returns:
            (batch, features_dim).
        """
        return self.projection(features)

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """Encodes observations.

        Args:
            observations: uint8 (batch, channels, height, width), oldest frame first.

        Returns:
            Features (batch, features_dim), float32, or autocast's dtype where autocast is on.

        Raises:
            ValueError: they have another shape than the encoder was built for.
        """
        frames = split_frames(observations, self.observation_shape, self.stack)
        return self.combine(self.encode_frames(frames).unflatten(0, (-1, self.stack)))

    def _trunk_shape(self) -> tuple[int, ...]:
        shape = self.preprocessing.output_shape
        try:
            return output_shape(self.trunk, shape)
        except _NO_WAY_THROUGH as error:
            side = self._side_that_fits(max(shape[1:]))
            raise UserError(
                f'{shape[1]}x{shape[2]} pixels do not go through encoder "{self.name}": its option '
                '"resize" brings them to a size that does'
                + (f", --encoder-options resize {side}." if side else ".")
            ) from error

    def _side_that_fits(self, given: int) -> int | None:
        """A usual side of square images that go through the trunk: the next larger, or any."""
        for side in sorted(_USUAL_SIDES, key=lambda side: (side < given, side)):
            try:
                output_shape(self.trunk, (self.preprocessing.output_shape[0], side, side))
            except _NO_WAY_THROUGH:
                continue
            return side
        return None


class Differences(nn.Module):
    """The newer frames' features beside how they differ from the frame before.

    As PIE-G does (Yuan et al. 2022, "Pre-trained image encoder for generalizable visual
    reinforcement learning"), after Shang et al. 2021, "Reinforcement learning with latent flow".
    Its code stops the older frame's gradient, which makes no difference to a frozen trunk.
    """

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(batch, stack, d) -> (batch, 2 * (stack - 1), d)."""
        newer = features[:, 1:]
        return torch.cat((newer, newer - features[:, :-1]), dim=1)


def split_frames(
    observations: torch.Tensor, observation_shape: ObservationShape, stack: int
) -> torch.Tensor:
    """Frames of stacks: (batch, stack * c, height, width) -> (batch * stack, c, height, width).

    Raises:
        ValueError: the observations are of another shape.
    """
    if observations.shape[1:] != observation_shape:
        raise ValueError(
            f"this encoder was built for observations (batch, *{observation_shape}), "
            f"not {tuple(observations.shape)}"
        )
    return observations.unflatten(1, (stack, -1)).flatten(0, 1)


# A leaf to torch.fx, whose proxies have no shapes to compare.
fx.wrap("split_frames")


def inflate(weight: torch.Tensor, frames: int, frame_channels: int) -> torch.Tensor:
    """Filters for RGB images, made into filters for stacks of frames.

    A stack of equal frames gives what the RGB image gave; a grey frame stands for an image whose
    three channels are that frame (as in timm, ``adapt_input_conv``, for one channel; its rule for
    others would take a fourth grey frame for a second red channel).

    Args:
        weight: (out, 3, height, width).
        frames: in a stack.
        frame_channels: 1 or 3.

    Returns:
        (out, frames * frame_channels, height, width).
    """
    per_frame = weight.sum(dim=1, keepdim=True) if frame_channels == 1 else weight
    return per_frame.repeat(1, frames, 1, 1) / frames
