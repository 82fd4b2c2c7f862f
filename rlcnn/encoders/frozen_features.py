"""Features of a frozen encoder, in two halves: a frozen one, once per frame, and a trained one.

The output of the first half is stored in place of the frame. The second half computes an
observation's features from the stored outputs at each use::

    stored = encode_for_storage(encoder, frames)      # once for each frame
    features = features_of_stored(encoder, stacks)    # equal to encoder(observations)
"""

from __future__ import annotations

import torch
from torch import nn

from rlcnn.encoders.base import Encoder
from rlcnn.encoders.frames import FrameEncoder, split_frames


def storage_layout(encoder: Encoder, depth: int) -> tuple[int, int]:
    """Number and length of the items that are stored for an observation of ``depth`` frames.

    There are ``depth`` items, one for each frame, if the encoder encodes each frame alone;
    otherwise one item for the whole observation.
    """
    if isinstance(encoder, FrameEncoder):
        if encoder.stack == depth:
            return depth, encoder.frame_features
        return 1, encoder.stack * encoder.frame_features
    return 1, encoder.features_dim


def encode_for_storage(encoder: Encoder, frames: torch.Tensor) -> torch.Tensor:
    """Encodes frames to items (n, length); see :func:`storage_layout`.

    Frames, uint8 (n, channels, height, width), are single if the encoder encodes each frame alone,
    otherwise whole observations.
    """
    if not isinstance(encoder, FrameEncoder):
        return encoder(frames)
    if frames.shape[1:] != encoder.frame_shape:
        frames = split_frames(frames, encoder.observation_shape, encoder.stack)
        return encoder.encode_frames(frames).unflatten(0, (-1, encoder.stack)).flatten(1)
    return encoder.encode_frames(frames)


def features_of_stored(encoder: Encoder, stored: torch.Tensor) -> torch.Tensor:
    """Features of observations, (batch, features_dim), by the trained half.

    ``stored``: (batch, items * length), the items of each observation, oldest first.
    """
    if isinstance(encoder, FrameEncoder):
        return encoder.combine(stored.unflatten(1, (encoder.stack, -1)))
    return stored


def pretrained_parts(encoder: Encoder) -> list[nn.Module]:
    """The modules of the first half, for which pretrained weights exist."""
    if isinstance(encoder, FrameEncoder):
        return [encoder.preprocessing, encoder.trunk, encoder.pool]
    return [encoder]
