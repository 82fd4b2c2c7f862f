"""Games of a square that walks on a ring, as frames in order with their actions."""

from __future__ import annotations

import numpy as np
import torch

from rlcnn.data.augment import Augmentation
from rlcnn.data.augment_options import AugmentConfig
from rlcnn.data.batches import Batches
from rlcnn.data.images import UNKNOWN, Actions, Episodes, StackedFrames, Task

SIDE, STEP = 16, 4
ACTIONS = ("left", "stay", "right")
DEPTH = 2


def walks(episodes: int = 4, length: int = 12, seed: int = 0) -> StackedFrames:
    """Observations of two 16x16 frames, on each a square of 4x4 at one of four places.

    An action moves the square by its width to the left or right, or not at all. The label is its
    place.
    """
    random = np.random.default_rng(seed)
    places = SIDE // STEP
    frames = np.zeros((1 + places, 1, SIDE, SIDE), dtype=np.uint8)
    for place in range(places):
        frames[1 + place, 0, 6:10, place * STEP : (place + 1) * STEP] = 255
    stacks, labels, taken, ids = [], [], [], []
    for episode in range(episodes):
        place, shown, action = int(random.integers(places)), [0] * (DEPTH - 1), UNKNOWN
        for _ in range(length):
            shown.append(1 + place)
            stacks.append(shown[-DEPTH:])
            labels.append(place)
            taken.append(action)
            ids.append(episode)
            action = int(random.integers(len(ACTIONS)))
            place = (place + action - 1) % places
    return StackedFrames(
        torch.from_numpy(frames),
        torch.tensor(stacks),
        torch.tensor(labels),
        [Task("place", tuple(map(str, range(places))))],
        {},
        Episodes(torch.zeros(len(ids), dtype=torch.int64), torch.tensor(ids)),
        Actions(ACTIONS, torch.tensor(taken), torch.zeros(len(taken), dtype=torch.int64)),
    )


def single_batches(frames: StackedFrames, batch_size: int = 16, seed: int = 0) -> Batches:
    """Minibatches of single observations, on the CPU."""
    augmentation = Augmentation(AugmentConfig(), frames)
    device = torch.device("cpu")
    return Batches(frames, augmentation, batch_size=batch_size, seed=seed, device=device)


def standardised(features: np.ndarray) -> np.ndarray:
    """Features (batch, d) scaled to one length, and then over the minibatch, float64."""
    features = features.astype(np.float64)
    directions = np.stack([row * len(row) ** 0.5 / np.linalg.norm(row) for row in features])
    deviation = np.sqrt(directions.var(axis=0) + 1e-5)
    return (directions - directions.mean(axis=0)) / deviation
