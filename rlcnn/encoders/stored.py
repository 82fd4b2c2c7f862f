"""A frozen encoder seen as two halves: one that each frame passes once, one that is learned.

What the first half makes of a frame is stored in the frame's place. The second makes an
observation's features of what is stored for its frames, as often as it is learned from::

    stored = encode_for_storage(encoder, frames)      # once for each frame
    features = features_of_stored(encoder, stacks)    # equal to encoder(observations)
"""

from __future__ import annotations

import torch
from torch import nn

from rlcnn.encoders.base import Encoder
from rlcnn.encoders.frames import FrameEncoder, split_frames


def storage_layout(encoder: Encoder, depth: int) -> tuple[int, int]:
    """How many items are stored for an observation, and how long each of them is.

    Args:
        encoder: the frozen encoder.
        depth: frames that the environment stacks in an observation.

    Returns:
        ``depth`` items, one for each frame, where the encoder looks at each frame alone; otherwise
        one, made of the whole observation.
    """
    if isinstance(encoder, FrameEncoder):
        if encoder.stack == depth:
            return depth, encoder.frame_features
        return 1, encoder.stack * encoder.frame_features
    return 1, encoder.features_dim


def encode_for_storage(encoder: Encoder, frames: torch.Tensor) -> torch.Tensor:
    """What is stored of frames.

    Args:
        encoder: the frozen encoder.
        frames: uint8 (n, channels, height, width): single frames where it looks at each alone, and
            otherwise whole observations.

    Returns:
        (n, length) by :func:`storage_layout`.
    """
    if not isinstance(encoder, FrameEncoder):
        return encoder(frames)
    if frames.shape[1:] != encoder.frame_shape:
        frames = split_frames(frames, encoder.observation_shape, encoder.stack)
        return encoder.encode_frames(frames).unflatten(0, (-1, encoder.stack)).flatten(1)
    return encoder.encode_frames(frames)


def features_of_stored(encoder: Encoder, stored: torch.Tensor) -> torch.Tensor:
    """Features of observations, (batch, features_dim).

    Args:
        encoder: the frozen encoder, whose second half is learned.
        stored: (batch, items * length), what was stored of each observation's frames, oldest first.
    """
    if isinstance(encoder, FrameEncoder):
        return encoder.combine(stored.unflatten(1, (encoder.stack, -1)))
    return stored


def pretrained_parts(encoder: Encoder) -> list[nn.Module]:
    """The modules of the first half: what weights are loaded for, frozen or fine-tuned."""
    if isinstance(encoder, FrameEncoder):
        return [encoder.preprocessing, encoder.trunk, encoder.pool]
    return [encoder]
