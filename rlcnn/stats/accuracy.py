"""Confidence intervals of accuracies and of their differences."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
from scipy import special


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of a proportion (Wilson 1927, the score interval without continuity correction).

    Unlike the plain normal interval, it stays within [0, 1] and has a width at 0 and at ``trials``,
    which is at least 1.

    Returns:
        Lower and upper end.
    """
    z = _quantile(confidence)
    p, scale = successes / trials, 1 + z**2 / trials
    centre = (p + z**2 / (2 * trials)) / scale
    half = z * math.sqrt(p * (1 - p) / trials + z**2 / (4 * trials**2)) / scale
    # Exactly 0 and 1 there, which rounding may miss.
    lower = 0.0 if successes == 0 else max(0.0, centre - half)
    return lower, 1.0 if successes == trials else min(1.0, centre + half)


def paired_interval(differences: npt.ArrayLike, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of the difference of two accuracies on the same test images.

    The adjusted Wald interval of Bonett and Price 2012 ("Adjusted Wald confidence interval for a
    difference of binomial proportions based on paired data"). It adds one image that only the
    first gets right and one that only the second gets right. The images are the sample; the
    interval does not include the variation of training the two again.

    Args:
        differences: (images,), correctness of the first minus that of the second: 1, 0 or -1, or
            a fraction if the second is a mean of several.
        confidence: 0 to 1, exclusive.

    Returns:
        Lower and upper end, within [-1, 1].
    """
    added = np.append(np.asarray(differences, dtype=np.float64), (1.0, -1.0))
    half = _quantile(confidence) * math.sqrt(float(added.var()) / len(added))
    centre = float(added.mean())
    return max(-1.0, centre - half), min(1.0, centre + half)


def clustered_interval(
    values: npt.ArrayLike, clusters: npt.ArrayLike, strata: npt.ArrayLike, confidence: float = 0.95
) -> tuple[float, float] | None:
    """Interval of a mean over images that are not independent, such as frames of one episode.

    It estimates the mean over columns of each column's mean over its images. The variance is that
    of the stratified delete-one-cluster jackknife: in each stratum ``(n - 1) / n`` times the
    squared deviations of the estimates without one of its ``n`` clusters (Rust & Rao 1996,
    "Variance estimation for complex surveys using replication techniques", section 2.3, with the
    stratum's own mean). The interval is Student's, with Satterthwaite's (1946) degrees of freedom
    over the strata.

    Args:
        values: (images, columns); NaN for missing values.
        clusters: integers (images,): images of one cluster depend on each other.
        strata: integers (images,), equal for all images of a cluster. The number of clusters in
            each stratum is fixed, such as games of each kind.
        confidence: 0 to 1, exclusive.

    Returns:
        Lower and upper end; None if a stratum or a column has a single cluster, which has no
        measurable variance.
    """
    values = np.asarray(values, dtype=np.float64)
    known = ~np.isnan(values)
    values, known = values[:, known.any(axis=0)], known[:, known.any(axis=0)]
    _, first, index = np.unique(clusters, return_index=True, return_inverse=True)
    sums, counts = np.zeros((2, len(first), values.shape[1]))
    np.add.at(sums, index, np.where(known, values, 0.0))
    np.add.at(counts, index, known)
    if not values.shape[1] or ((counts > 0).sum(axis=0) < 2).any():
        return None
    rest = ((sums.sum(axis=0) - sums) / (counts.sum(axis=0) - counts)).mean(axis=1)
    variance = spread = 0.0
    own = np.asarray(strata)[first]
    for stratum in np.unique(own):
        remaining = rest[own == stratum]
        n = len(remaining)
        if n < 2:
            return None
        part = (n - 1) / n * float(((remaining - remaining.mean()) ** 2).sum())
        variance += part
        spread += part**2 / (n - 1)
    centre = float((sums.sum(axis=0) / counts.sum(axis=0)).mean())
    if variance == 0:
        return centre, centre
    freedom = variance**2 / spread
    half = float(special.stdtrit(freedom, (1 + confidence) / 2)) * math.sqrt(variance)
    return centre - half, centre + half


def clustered_gain_interval(
    differences: npt.ArrayLike, clusters: npt.ArrayLike, strata: npt.ArrayLike
) -> tuple[float, float] | None:
    """95% :func:`clustered_interval` of a difference of accuracies, with a width in every case.

    Equal clusters in a sample do not mean that all clusters are equal. If all are equal, each
    counts as one image of :func:`paired_interval`. ``differences`` are from -1 to 1.
    """
    found = clustered_interval(differences, clusters, strata)
    if found is None or found[0] < found[1]:
        return found
    return paired_interval(np.full(len(np.unique(clusters)), found[0]))


def _quantile(confidence: float) -> float:
    return NormalDist().inv_cdf((1 + confidence) / 2)
