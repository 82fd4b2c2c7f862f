"""Features on a plane: PCA, then t-SNE (van der Maaten & Hinton 2008)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from envs.errors import UserError
from rlcnn.data.images import Task
from rlcnn.report.style import INK, elided, point_style
from rlcnn.visualize.sheets import new_sheet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Van der Maaten reduces features to so many dimensions first.
_COMPONENTS = 50
_MOST_NAMED = 21


def embed(
    features: npt.NDArray[np.float32], *, perplexity: float, seed: int
) -> npt.NDArray[np.float32]:
    """Places of features (images, features) on a plane, float32 (images, 2).

    Raises:
        UserError: the perplexity is not below the number of images.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    count = len(features)
    if not 0 < perplexity < count:
        raise UserError(
            f"--perplexity {perplexity:g} must be more than 0 and less than {count}, the number of"
            " images"
        )
    if not np.ptp(features, axis=0).any():
        raise UserError("all images have the same features: there is nothing to embed")
    components = min(_COMPONENTS, *features.shape)
    reduced = PCA(components, random_state=seed).fit_transform(features)
    tsne = TSNE(perplexity=perplexity, init="pca", random_state=seed)
    return tsne.fit_transform(reduced).astype(np.float32)


def draw_embedding(
    places: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], task: Task
) -> Figure:
    """Points (images, 2) coloured by class, int64 (images,), or by a scale where it is a number.

    Few classes have a colour and a marker each. Of many that are no numbers, the most frequent do.
    """
    figure = new_sheet(6.4, 5.2)
    axes = figure.subplots()
    numbers = [_leading_number(name) for name in task.classes]
    if len(task.classes) > 10 and None not in numbers:
        values = np.array(numbers, dtype=float)[labels]
        drawn = axes.scatter(
            places[:, 0], places[:, 1], c=values, cmap="viridis", s=9, linewidths=0
        )
        figure.colorbar(drawn, ax=axes, label=task.name)
    else:
        present, counts = np.unique(labels, return_counts=True)
        named = sorted(present[np.argsort(-counts, kind="stable")][:_MOST_NAMED])
        if len(named) < len(present):
            rest = ~np.isin(labels, named)
            label = f"{len(present) - len(named)} other classes"
            axes.scatter(
                places[rest, 0], places[rest, 1], color="#c8c8c8", s=6, linewidths=0, label=label
            )
        for number, index in enumerate(named):
            colour, marker = point_style(number)
            own = places[labels == index]
            name = elided(task.classes[index], 24)
            axes.scatter(
                own[:, 0],
                own[:, 1],
                color=colour,
                marker=marker,
                s=12,
                linewidths=0,
                label=name,
            )
        figure.legend(loc="outside right upper", title=task.name, markerscale=1.6)
    axes.set(xticks=[], yticks=[], xlabel="t-SNE 1 (no unit)", ylabel="t-SNE 2 (no unit)")
    axes.spines[:].set(visible=True, color=INK)
    return figure


def _leading_number(name: str) -> float | None:
    """The value of a class that is a number, or the lower end of a range: -3 or 0-6."""
    number = re.fullmatch(r"(-?\d+(?:\.\d+)?)(?:--?\d+(?:\.\d+)?)?", name, re.ASCII)
    return float(number[1]) if number else None
