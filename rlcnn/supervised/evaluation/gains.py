"""What one classifier's accuracy has over another's on the same held-out images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from rlcnn.data.images import UNKNOWN, Episodes, Task
from rlcnn.stats.accuracy import clustered_gain_interval, paired_interval

Interval = tuple[float, float]


@dataclass(frozen=True)
class Gain:
    """An accuracy less another.

    Attributes:
        value: -1 to 1.
        interval: its 95% interval over other images, or over other games played where the images
            are frames of games; what training again would change is not in it. None where nothing
            tells how wide it is.
    """

    value: float
    interval: Interval | None

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
    """One classifier over another, task by task and on the whole.

    Attributes:
        mean: over the tasks, each counting the same.
        tasks: by their names; without those of which no held-out class is known.
    """

    mean: Gain
    tasks: Mapping[str, Gain]

    def to_json(self) -> dict[str, Any]:
        """As JSON values; ``tasks`` where there are several."""
        told = self.mean.to_json()
        if len(self.tasks) > 1:
            told["tasks"] = {name: gain.to_json() for name, gain in self.tasks.items()}
        return told


def gains(
    own: torch.Tensor,
    other: torch.Tensor,
    labels: torch.Tensor,
    tasks: Sequence[Task],
    episodes: Episodes | None = None,
) -> Gains:
    """Compares two classifiers by what each got right.

    Args:
        own: bool (images, tasks).
        other: likewise.
        labels: int64 (images, tasks), ``UNKNOWN`` where nothing can be right or wrong. At least
            one is known.
        tasks: what was asked.
        episodes: which images depend on each other; the intervals are then over games played
            (:func:`rlcnn.stats.accuracy.clustered_gain_interval`), and else over images.
    """
    differences = np.where(labels == UNKNOWN, np.nan, own.double() - other.double())
    asked = [column for column in range(len(tasks)) if (labels[:, column] != UNKNOWN).any()]

    def gain(columns: list[int]) -> Gain:
        chosen = differences[:, columns]
        rows = np.flatnonzero(~np.isnan(chosen).all(axis=1))
        chosen = chosen[rows]
        value = float(np.nanmean(chosen, axis=0).mean())
        return Gain(value, _interval(chosen, episodes, rows))

    return Gains(gain(asked), {tasks[column].name: gain([column]) for column in asked})


def _interval(
    differences: npt.NDArray[np.float64], episodes: Episodes | None, rows: npt.NDArray[np.intp]
) -> Interval | None:
    if episodes is not None:
        return clustered_gain_interval(
            differences, episodes.ids.numpy()[rows], episodes.games.numpy()[rows]
        )
    if differences.shape[1] == 1:
        return paired_interval(differences[:, 0])
    alone = np.arange(len(differences))
    return clustered_gain_interval(differences, alone, np.zeros_like(alone))
