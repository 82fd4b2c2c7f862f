"""Measured coverage of intervals of a difference, from :mod:`rlcnn.stats.simulation`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

OURS = "larger variance, t"
"""The table's name of :func:`rlcnn.stats.intervals.difference_interval`."""

WELCH = "Welch, t"
"""The table's name of Welch's interval, stratified by game."""

PERCENTILE = "percentile bootstrap, IQM"
"""The table's name of the interval that rliable's plots show."""


@dataclass(frozen=True)
class Cell:
    """One kind of study, simulated many times.

    Attributes:
        scenario: distribution of the runs' scores.
        games: number of games.
        runs: runs of each arm in each game.
        coverage: method -> share of studies whose nominal 95% interval contained the true
            difference.
        width: method -> median width of its intervals, as a multiple of Welch's.
        ceiling: largest possible coverage of intervals about as wide as the spread of the runs.
    """

    scenario: str
    games: int
    runs: int
    coverage: Mapping[str, float]
    width: Mapping[str, float]
    ceiling: float


@dataclass(frozen=True)
class Calibration:
    """The whole table.

    Attributes:
        confidence: nominal coverage of all intervals.
        studies: simulated for each cell of the t intervals.
        resampled_studies: simulated for each cell of the intervals that resample.
        cells: all cells.
    """

    confidence: float
    studies: int
    resampled_studies: int
    cells: tuple[Cell, ...]


@cache
def load_calibration() -> Calibration:
    """The table in the package."""
    text = resources.files("rlcnn.stats").joinpath("calibration.json").read_text()
    table = json.loads(text)
    return Calibration(
        table["confidence"],
        table["studies"],
        table["resampled_studies"],
        tuple(Cell(**cell) for cell in table["cells"]),
    )
