"""Confidence intervals of accuracies, and of what one accuracy has over another."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import numpy.typing as npt


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of a proportion (Wilson 1927, the score interval without continuity correction).

    Unlike the plain normal interval it never leaves [0, 1] and has a width at 0 and at all.

    Args:
        successes: 0 to ``trials``.
        trials: at least 1.
        confidence: 0 to 1, exclusive.

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
    difference of binomial proportions based on paired data"): one image that only the first gets
    right and one that only the second does are added to those there are. The images are the
    sample; what training the two again would change is not in it.

    Args:
        differences: (images,): how right the first was less how right the second was, 1, 0 or -1;
            fractions where several took the second's place and their mean is compared.
        confidence: 0 to 1, exclusive.

    Returns:
        Lower and upper end, within [-1, 1].
    """
    added = np.append(np.asarray(differences, dtype=np.float64), (1.0, -1.0))
    half = _quantile(confidence) * math.sqrt(float(added.var()) / len(added))
    centre = float(added.mean())
    return max(-1.0, centre - half), min(1.0, centre + half)


def _quantile(confidence: float) -> float:
    return NormalDist().inv_cdf((1 + confidence) / 2)
