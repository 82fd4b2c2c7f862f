"""Transfer metrics of arms that were evaluated at different steps, or failed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.study_files import tiny_plan

from agents.study.curves import study_curves, transfer_rows
from agents.study.results import StudyResults
from agents.study.scores import Scale
from rlcnn.report import RunCurve, RunResult
from rlcnn.runs.directory import RunDirectory
from rlcnn.stats import RandomAgent, TransferMetrics

# A deviation of 1 around 0: normalised scores are the returns themselves.
SCALE = Scale.of(
    ["support.games:Signals-v0"], RandomAgent.from_returns({"support.games:Signals-v0": [-1, 0, 1]})
)
(GAME,) = SCALE.games
PLAN = tiny_plan()
SEEDS = range(3)
STEPS = np.arange(100.0, 1001.0, 100.0)


def metrics(arm: list[RunCurve], control: list[RunCurve]) -> TransferMetrics | str:
    """By agent steps."""
    curves = {GAME: {"frozen-random": tuple(arm), "scratch": tuple(control)}}
    runs = [
        RunResult(GAME, name, curve.seed, "failed" if curve.failed_as is not None else "done")
        for name, of_arm in curves[GAME].items()
        for curve in of_arm
    ]
    row, _ = transfer_rows(StudyResults(Path(), PLAN, runs, {}), curves, SCALE, 0.5, {})
    return row.metrics or row.missing


def learning(steps: np.ndarray, rate: float = 0.001, **options: float) -> list[RunCurve]:
    return [RunCurve(seed, steps, steps * rate + seed, **options) for seed in SEEDS]  # type: ignore[arg-type]


@pytest.mark.parametrize("failed_at", [300.0, 0.0])
def test_an_arm_whose_runs_all_failed_is_compared_over_the_whole_budget(failed_at: float) -> None:
    steps = STEPS[: round(failed_at / 100)]
    found = metrics(learning(steps, failed_as=0.0), learning(STEPS))
    assert isinstance(found, TransferMetrics)
    assert found.budgets == {GAME: 1000}
    # Seeds 0, 1 and 2 end at 1, 2 and 3, and acting at random at 0.
    assert found.asymptotic.point == pytest.approx(-2.0)
    # Until it failed the arm was as good as the control.
    assert found.jumpstart is not None
    assert found.jumpstart.point == pytest.approx(0.0 if failed_at else -1.1)


def test_a_jumpstart_compares_both_arms_at_the_same_step() -> None:
    # Alike, but for when the first games of the one ended.
    found = metrics(learning(STEPS[3:]), learning(STEPS))
    assert isinstance(found, TransferMetrics)
    assert found.jumpstart is not None
    assert found.jumpstart.point == pytest.approx(0.0)


def test_a_run_without_a_curve_is_named() -> None:
    silent = [*learning(STEPS)[:2], RunCurve(2, np.zeros(0), np.zeros(0))]
    assert metrics(silent, learning(STEPS)) == "frozen-random has a run without a learning curve"
    gone = [RunCurve(seed, np.zeros(0), np.zeros(0), failed_as=0.0) for seed in SEEDS]
    assert metrics(gone, gone) == ("there is no step at which all runs of both arms were evaluated")


@pytest.mark.parametrize("length, lags", [(15, False), (25, True), (500, True)])
def test_the_source_says_if_the_last_games_are_much_of_a_training(
    tmp_path: Path, length: float, lags: bool
) -> None:
    with RunDirectory.create(tmp_path / "run", {}) as run:
        run.append_metrics(10_000, {"rollout/ep_rew_mean": 1.0, "rollout/ep_len_mean": length})
        run.append_metrics(10_000, {"train/loss": 0.5})
    done = RunResult(GAME, "scratch", 0, "done", steps=10_000, directory="run")
    source = study_curves(StudyResults(tmp_path, PLAN, [done], {})).source
    assert ("lag" in source) is lags
    if lags:
        assert f"up to {min(length, 100):.0f}% of a training" in source
