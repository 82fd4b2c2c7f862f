"""Measured coverage of intervals of a difference, from simulated studies.

``tests/support/interval_coverage.py`` simulates them and writes ``calibration.json``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

# The table's names of :func:`rlcnn.stats.intervals.difference_interval`, of Welch's interval,
# stratified by game, and of the interval that rliable's plots show.
OURS = "larger variance, t"
WELCH = "Welch, t"
PERCENTILE = "percentile bootstrap, IQM"


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
    """The whole table, and how many ``studies`` each cell simulates.

    For intervals that resample it is ``resampled_studies``. ``confidence`` is nominal.
    """

    confidence: float
    studies: int
    resampled_studies: int
    cells: tuple[Cell, ...]


@cache
def load_calibration() -> Calibration:
    """The table in the package."""
    table = json.loads(resources.files("rlcnn.stats").joinpath("calibration.json").read_text())
    return Calibration(
        table["confidence"],
        table["studies"],
        table["resampled_studies"],
        tuple(Cell(**cell) for cell in table["cells"]),
    )
