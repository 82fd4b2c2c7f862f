"""A small encoder and minibatches of sequences for it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from support.frame_sequences import ACTIONS, DEPTH, SIDE

from rlcnn.encoders import Encoder, create_encoder
from rlcnn.selfsupervised.views import SequenceBatch

MakeBatch = Callable[..., SequenceBatch]


@pytest.fixture
def encoder() -> Encoder:
    """LeNet for two frames of 16x16, with 8 features."""
    torch.manual_seed(0)
    return create_encoder("lenet", (DEPTH, SIDE, SIDE), features_dim=8)


@pytest.fixture
def make_batch() -> MakeBatch:
    """Makes minibatches of random pixels, as floats, at offsets."""

    def make(offsets: tuple[int, ...], count: int = 3, seed: int = 0) -> SequenceBatch:
        random = torch.Generator().manual_seed(seed)
        shape = (count, len(offsets), DEPTH, SIDE, SIDE)
        return SequenceBatch(
            255 * torch.rand(shape, generator=random),
            torch.randint(len(ACTIONS), (count, max(offsets)), generator=random),
            torch.zeros((count, 1), dtype=torch.int64),
            offsets,
        )

    return make
