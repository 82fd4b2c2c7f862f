"""Labels of an emulator's frames: RAM, actions, rewards, the order of frames, and the game."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from rlcnn.data.images import UNKNOWN, Task


class Labelling(NamedTuple):
    """One task and its labels, int64 (observations,) with ``UNKNOWN`` for no label."""

    task: Task
    train: np.ndarray
    test: np.ndarray

    @property
    def entropy(self) -> float:
        """The :func:`normalised_entropy` of the training labels."""
        return normalised_entropy(self.train, len(self.task.classes))

    def about(self) -> dict[str, Any]:
        """The task as JSON values."""
        return {
            "name": self.task.name,
            "classes": len(self.task.classes),
            "normalised_entropy": round(self.entropy, 4),
        }


def label_names(
    name: str, names: tuple[str, ...], train: np.ndarray, test: np.ndarray
) -> Labelling:
    """Labels of named values; the classes are the values that occur in training.

    ``train`` and ``test`` are int64 indices of ``names``, or ``UNKNOWN``. A test value that does
    not occur in training becomes ``UNKNOWN``.
    """
    present = np.unique(train[train != UNKNOWN])
    classes = tuple(names[value] for value in present)
    return Labelling(Task(name, classes), _places(train, present), _places(test, present))


def label_values(name: str, train: np.ndarray, test: np.ndarray, *, max_classes: int) -> Labelling:
    """Labels of bytes of RAM, 0 to 255, or ``UNKNOWN``.

    If training has at most ``max_classes`` values, each is a class. Otherwise the range from the
    least to the greatest is cut into ``max_classes`` bins of equal width, and each bin with a
    training value is a class. A test value whose class does not occur in training becomes
    ``UNKNOWN``; one outside the range of training belongs to the outermost bin.

    AtariARI (Anand et al. 2019, "Unsupervised State Representation Learning in Atari") has 256
    classes for every byte; docs/labelled-frames.md says why neighbouring values share a class here.
    """
    values = np.unique(train[train != UNKNOWN])
    if len(values) <= max_classes:
        return label_names(name, tuple(map(str, range(256))), train, test)
    low, high = int(values[0]), int(values[-1])
    # Bin i holds the values from edges[i] to below the next edge.
    edges = low + np.ceil(np.arange(max_classes) * (high + 1 - low) / max_classes).astype(np.int64)
    bins = [
        np.where(of == UNKNOWN, UNKNOWN, np.searchsorted(edges, of.clip(low, high), "right") - 1)
        for of in (train, test)
    ]
    last = np.append(edges[1:] - 1, high)
    names = tuple(
        str(first) if first == end else f"{first}-{end}"
        for first, end in zip(edges, last, strict=True)
    )
    return label_names(name, names, *bins)


def normalised_entropy(labels: np.ndarray, classes: int) -> float:
    """Entropy of the known labels, divided by the logarithm of the number of classes.

    It is 1 if all classes are equally frequent, and 0 if there is only one.
    """
    counts = np.bincount(labels[labels != UNKNOWN], minlength=classes)
    if classes < 2 or not counts.any():
        return 0.0
    shares = counts[counts > 0] / counts.sum()
    # Adding zero turns the -0.0 of a constant into 0.0.
    return float(-(shares * np.log(shares)).sum() / math.log(classes)) + 0.0


def shuffle_half(stacks: np.ndarray, seed: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Shuffles the frames of half of the observations.

    Only full stacks of different frames take part: in others the order is not visible, or the
    zeros of a fresh stack give it away. A shuffled stack gets each wrong order with equal
    probability.

    ``stacks`` are int64 (n, frame_stack): frame numbers, 0 for none. Returns the stacks, and for
    each the class 0 ("shuffled"), 1 ("true") or ``UNKNOWN``.
    """
    rng = np.random.default_rng(seed)
    stacks, depth = stacks.copy(), stacks.shape[1]
    in_order = np.sort(stacks, axis=1)
    whole = (in_order[:, 0] > 0) & (np.diff(in_order, axis=1) > 0).all(axis=1)
    chosen = rng.permutation(np.flatnonzero(whole))
    chosen = chosen[: len(chosen) // 2]
    labels = np.where(whole, 1, UNKNOWN)
    labels[chosen] = 0
    for row in chosen:
        order = np.arange(depth)
        while (order == np.arange(depth)).all():
            order = rng.permutation(depth)
        stacks[row] = stacks[row, order]
    return stacks, labels


def _places(values: np.ndarray, present: np.ndarray) -> np.ndarray:
    """The index of each value in ``present``, or ``UNKNOWN``."""
    if not len(present):
        return np.full(len(values), UNKNOWN, dtype=np.int64)
    places = np.searchsorted(present, values).clip(max=len(present) - 1)
    return np.where(present[places] == values, places, UNKNOWN).astype(np.int64)


def repeated_rows(*parts: np.ndarray) -> list[np.ndarray]:
    """For each part's stacks whether they equal earlier ones of this part or one before, (n,)."""
    _, first = np.unique(np.concatenate(parts), axis=0, return_index=True)
    repeated = np.ones(sum(map(len, parts)), dtype=bool)
    repeated[first] = False
    return np.split(repeated, np.cumsum([len(part) for part in parts])[:-1])
