"""Checks of scores before anything is computed from them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from envs.errors import UserError, nearest

FloatArray = NDArray[np.float64]
Scores = Mapping[str, ArrayLike]
"""Each arm's scores, (runs, games)."""


def check_scores(scores: Scores, least_runs: int = 1) -> dict[str, FloatArray]:
    """Arms as float arrays (runs, games), all of the same games; a vector is the runs of one game.

    An interval needs ``least_runs`` of 2.

    Raises:
        UserError: no arm, ragged rows, NaN or infinite scores, too few runs, or arms of different
            numbers of games.
    """
    if not scores:
        raise UserError("there are no scores: expected at least one arm")
    arrays = {arm: check_arm(arm, values, least_runs) for arm, values in scores.items()}
    (first, games), *others = ((arm, array.shape[1]) for arm, array in arrays.items())
    for arm, count in others:
        if count != games:
            raise UserError(
                f'arm "{arm}" has scores of {count} game{"s" * (count != 1)} and arm'
                f' "{first}" of {games}: expected the same games for all'
            )
    return arrays


def check_arm(arm: str, values: ArrayLike, least_runs: int = 1) -> FloatArray:
    """One arm's scores as a float array (runs, games); errors as :func:`check_scores`."""
    try:
        array = np.asarray(values, dtype=float)
    except (TypeError, ValueError):
        raise UserError(
            f'arm "{arm}" has scores that are ragged or no numbers: expected as many for every run'
        ) from None
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or array.size == 0:
        raise UserError(
            f'arm "{arm}" has scores of shape {np.shape(values)}: expected (runs, games), not empty'
        )
    if not np.isfinite(array).all():
        run, game = np.argwhere(~np.isfinite(array))[0]
        raise UserError(
            f'arm "{arm}" has the score {array[run, game]} in run {run}, game {game} (from 0):'
            " expected finite numbers; run it again, or say what a failed run counts as"
        )
    if len(array) < least_runs:
        raise UserError(
            f'arm "{arm}" has {len(array)} run{"s" * (len(array) != 1)}: expected at least'
            f" {least_runs}, since one run says nothing of how runs differ"
        )
    return array


def check_pair(
    scores: Scores, treatment: str, control: str, least_runs: int = 2
) -> tuple[FloatArray, FloatArray]:
    """The scores of two arms; errors as :func:`check_scores`, and for unknown or equal arms."""
    if len(scores) < 2:
        raise UserError(f"a comparison needs 2 arms: there is only {', '.join(scores) or 'none'}")
    for arm in (treatment, control):
        if arm not in scores:
            raise UserError(
                f'arm "{arm}" has no scores: expected one of {", ".join(scores)}.'
                f"{nearest(arm, scores)}"
            )
    if treatment == control:
        raise UserError(f'arm "{treatment}" cannot be compared with itself: name another')
    pair = check_scores({arm: scores[arm] for arm in (treatment, control)}, least_runs)
    return pair[treatment], pair[control]


def check_confidence(confidence: float) -> None:
    """Raises ``UserError`` unless ``confidence`` is between 0 and 1, exclusive."""
    if not 0 < confidence < 1:
        raise UserError(f"confidence {confidence} must be more than 0 and less than 1, as 0.95 is")
