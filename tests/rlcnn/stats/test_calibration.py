"""The table of coverages in the package, and simulated studies that check it."""

from __future__ import annotations

import itertools
import math

import pytest
from support.interval_coverage import GAMES, RUNS, ceiling, resampling_cell, t_cell

from rlcnn.stats import load_calibration
from rlcnn.stats.calibration import OURS, WELCH, Cell
from rlcnn.stats.scenarios import SCENARIOS

CELLS = {(cell.scenario, cell.games, cell.runs): cell for cell in load_calibration().cells}


def noise(coverage: float, studies: int, drawn: int) -> float:
    """Four standard errors of the difference of two shares of about that size."""
    spread = max(coverage * (1 - coverage), 0.01)
    return 4 * math.sqrt(spread * (1 / studies + 1 / drawn))


def check(cell: Cell, coverage: dict[str, float], drawn: int, studies: int) -> None:
    for method, share in coverage.items():
        kept = cell.coverage[method]
        assert share == pytest.approx(kept, abs=noise(kept, studies, drawn)), (cell, method)


def test_every_kind_of_study_is_in_the_table() -> None:
    assert set(CELLS) == set(itertools.product(SCENARIOS, GAMES, RUNS))


@pytest.mark.parametrize(
    ("scenario", "games", "runs"),
    [
        ("normal", 1, 3),
        ("lognormal, one arm twice the other", 1, 5),
        ("bimodal, 90% and 50% take off", 3, 3),
        ("unequal variance (4:1 in deviation)", 3, 10),
    ],
)
def test_drawn_again_the_coverage_is_that_of_the_table(
    scenario: str, games: int, runs: int
) -> None:
    again = t_cell(scenario, runs, games, 2_000, seed=1)["coverage"]
    check(CELLS[scenario, games, runs], again, 2_000, load_calibration().studies)


def test_the_percentile_bootstrap_drawn_again_falls_as_short_as_the_table_says() -> None:
    cell = CELLS["normal", 1, 3]
    again = resampling_cell("normal", 3, 1, 200, seed=1)["coverage"]
    check(cell, again, 200, load_calibration().resampled_studies)
    assert cell.coverage["percentile bootstrap, IQM"] < 0.87
    assert cell.coverage[OURS] > 0.94


@pytest.mark.slow
@pytest.mark.parametrize(("scenario", "games", "runs"), CELLS)
def test_every_cell_drawn_again_is_that_of_the_table(scenario: str, games: int, runs: int) -> None:
    cell, table = CELLS[scenario, games, runs], load_calibration()
    check(cell, t_cell(scenario, runs, games, 20_000, seed=2)["coverage"], 20_000, table.studies)
    again = resampling_cell(scenario, runs, games, 500, seed=2)["coverage"]
    check(cell, again, 500, table.resampled_studies)


def test_our_interval_has_its_nominal_coverage_unless_runs_miss_an_outcome() -> None:
    for cell in CELLS.values():
        # Where few runs show one mode only, nothing can help.
        if cell.ceiling > 0.99:
            assert cell.coverage[OURS] >= 0.935, cell
        assert cell.coverage[OURS] >= cell.coverage[WELCH] - 0.005, cell


def test_our_interval_is_at_most_a_third_wider_than_welchs() -> None:
    assert max(cell.width[OURS] for cell in CELLS.values()) < 1.34


def test_three_runs_with_one_common_outcome_give_no_information() -> None:
    # Both arms pure: (0.9^3 + 0.1^3) (0.5^3 + 0.5^3), and no pure pattern differs by 0.4.
    scenario = SCENARIOS["bimodal, 90% and 50% take off"]
    assert ceiling(scenario, 3, 1) == pytest.approx(1 - 0.73 * 0.25)
    assert ceiling(scenario, 3, 3) == pytest.approx(1 - (0.73 * 0.25) ** 3, abs=1e-6)
    # A fifth that fails is not drawn in a third of studies with five runs.
    failing = SCENARIOS["a fifth of one arm's runs fail, the others are close"]
    assert ceiling(failing, 5, 1) == pytest.approx(1 - 0.8**5 - 0.2**5)
    # With equal chances only patterns that differ are missed: 0.7^3 against 0.3^3 and back.
    equal = SCENARIOS["bimodal, 70% and 70% take off"]
    assert ceiling(equal, 3, 1) == pytest.approx(1 - 2 * 0.7**3 * 0.3**3)
    assert ceiling(SCENARIOS["normal"], 3, 1) == 1


def test_no_method_covers_more_than_the_ceiling() -> None:
    cell = CELLS["bimodal, 90% and 50% take off", 1, 3]
    for method, covered in cell.coverage.items():
        if method.startswith(("percentile", OURS, WELCH)):
            # Runs of one mode differ a little, so that now and then an interval is wide by chance.
            assert covered <= cell.ceiling + 0.03, method
