"""The nearest training images in feature space, as in figure 4 of Krizhevsky et al. 2012."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from envs.errors import UserError
from rlcnn.report.style import number, percent
from rlcnn.visualize.sheets import CLASS_COLOUR, OTHER_COLOUR, draw_image, new_sheet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Features = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Neighbours:
    """The nearest training images of each query.

    ``indices`` and Euclidean ``distances`` are (queries, neighbours), the nearest first.
    """

    indices: npt.NDArray[np.int64]
    distances: npt.NDArray[np.float32]

    def share(self, queries: npt.NDArray[np.int64], train: npt.NDArray[np.int64]) -> float:
        """Share of neighbours with the class of their query; both are labels, int64 (images,)."""
        return float((train[self.indices] == queries[:, None]).mean())


def chance(queries: npt.NDArray[np.int64], train: npt.NDArray[np.int64]) -> float:
    """The :meth:`~Neighbours.share` that neighbours drawn at random would have."""
    shares = np.bincount(train) / len(train)
    return float(
        np.append(shares, np.zeros(max(0, queries.max() + 1 - len(shares))))[queries].mean()
    )


def find_neighbours(queries: Features, train: Features, count: int) -> Neighbours:
    """The nearest of ``train`` (images, features) for each of ``queries``, by distance.

    Raises:
        UserError: there are fewer training images than neighbours.
    """
    from sklearn.neighbors import NearestNeighbors

    if len(train) < count:
        raise UserError(
            f"--neighbours {count} must be at most {len(train)}, the number of training images"
        )
    search = NearestNeighbors(n_neighbors=count).fit(train)
    distances, indices = search.kneighbors(queries)
    return Neighbours(indices, distances)


def draw_neighbours(
    neighbours: Neighbours,
    query: Callable[[int], torch.Tensor],
    train: Callable[[int], torch.Tensor],
    query_names: Sequence[str],
    train_names: Callable[[int], str],
    same: npt.NDArray[np.bool_],
) -> Figure:
    """A row for each query: the query, and its neighbours, framed by whether the class is its own.

    ``query`` and ``train`` give images by index, uint8 (channels, height, width); ``same`` is bool
    (queries, neighbours).
    """
    rows, count = neighbours.indices.shape
    figure = new_sheet(1.35 * (count + 1), 1.62 * rows + 0.5)
    panels = figure.subplots(rows, count + 1, squeeze=False)
    for row in range(rows):
        draw_image(panels[row, 0], query(row), query_names[row])
        for place in range(count):
            index = int(neighbours.indices[row, place])
            own = bool(same[row, place])
            draw_image(
                panels[row, place + 1],
                train(index),
                f"{train_names(index)}\ndistance {number(float(neighbours.distances[row, place]))}",
                color=CLASS_COLOUR if own else OTHER_COLOUR,
                linestyle="-" if own else (0, (4, 4)),
                linewidth=2.5,
            )
    from matplotlib.lines import Line2D

    lines = [
        Line2D([], [], color=CLASS_COLOUR, linewidth=2.5, label="class of the query"),
        Line2D([], [], color=OTHER_COLOUR, linewidth=2.5, linestyle="--", label="another class"),
    ]
    figure.legend(handles=lines, loc="outside lower left", ncols=2)
    return figure


def describe_share(share: float, by_chance: float, queries: int) -> str:
    """The share of neighbours with the query's class, in one sentence."""
    return (
        f"Of the neighbours of {queries:,} queries {percent(share)} have the class of their query;"
        f" by chance it would be {percent(by_chance)}."
    )
