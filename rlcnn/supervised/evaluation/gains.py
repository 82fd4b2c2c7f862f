"""Differences in accuracy between classifiers on the same held-out images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from rlcnn.data.images import UNKNOWN, Episodes, Task
from rlcnn.stats.accuracy import clustered_gain_interval, paired_interval


@dataclass(frozen=True)
class Gain:
    """A difference of two accuracies, -1 to 1.

    The interval of 95% is over other images, or over other episodes where the images are frames of
    games; it does not cover a repeated training. It is None if there are too few episodes.
    """

    value: float
    interval: tuple[float, float] | None

    def __str__(self) -> str:
        """In points: ``+12.31 points (95% interval +10.10 to +14.52)``."""
        if self.interval is None:
            return f"{100 * self.value:+.2f} points (too few games played for an interval)"
        lower, upper = (100 * end for end in self.interval)
        return f"{100 * self.value:+.2f} points (95% interval {lower:+.2f} to {upper:+.2f})"

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {"gain": self.value, "interval": self.interval and list(self.interval)}


@dataclass(frozen=True)
class Gains:
    """Differences between two classifiers: the mean over tasks with equal weights, and each task's.

    Tasks without a known held-out class are left out.
    """

    mean: Gain
    tasks: Mapping[str, Gain]

    def to_json(self) -> dict[str, Any]:
        """As JSON values; with ``tasks`` if there are several."""
        document = self.mean.to_json()
        if len(self.tasks) > 1:
            document["tasks"] = {name: gain.to_json() for name, gain in self.tasks.items()}
        return document


def gains(
    own: torch.Tensor,
    other: torch.Tensor,
    labels: torch.Tensor,
    tasks: Sequence[Task],
    episodes: Episodes | None = None,
) -> Gains:
    """Compares two classifiers by their correct predictions, bool (images, tasks).

    ``labels`` are int64 (images, tasks), ``UNKNOWN`` where a class is not known; at least one is.
    ``episodes`` says which images depend on each other.
    """
    differences = np.where(labels == UNKNOWN, np.nan, own.double() - other.double())
    known = [column for column in range(len(tasks)) if (labels[:, column] != UNKNOWN).any()]

    def gain(columns: list[int]) -> Gain:
        chosen = differences[:, columns]
        rows = np.flatnonzero(~np.isnan(chosen).all(axis=1))
        return mean_gain(chosen[rows], episodes and episodes.at(torch.from_numpy(rows)))

    return Gains(gain(known), {tasks[column].name: gain([column]) for column in known})


def mean_gain(differences: npt.NDArray[np.float64], episodes: Episodes | None) -> Gain:
    """The mean of paired differences (images, tasks) with NaN for unknown classes.

    Tasks have equal weights. With episodes the interval is over them
    (:func:`rlcnn.stats.accuracy.clustered_gain_interval`), otherwise over images.
    """
    value = float(np.nanmean(differences, axis=0).mean())
    if episodes is None and differences.shape[1] == 1:
        return Gain(value, paired_interval(differences[:, 0]))
    if episodes is None:
        images = np.arange(len(differences))
        return Gain(value, clustered_gain_interval(differences, images, np.zeros_like(images)))
    ids, games = episodes.ids.numpy(), episodes.games.numpy()
    return Gain(value, clustered_gain_interval(differences, ids, games))
