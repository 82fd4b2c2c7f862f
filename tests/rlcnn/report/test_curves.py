"""Mean learning curves: their runs, their steps and their intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rlcnn.report.curves import RunCurve, common_steps, mean_curve


def curve(steps: list[float], returns: list[float], **options: object) -> RunCurve:
    return RunCurve(0, np.array(steps, float), np.array(returns, float), **options)  # type: ignore[arg-type]


def test_the_interval_is_students() -> None:
    runs = [curve([10, 20], [value, 2 * value]) for value in (1.0, 2.0, 3.0)]
    mean = mean_curve(runs)
    assert mean is not None
    assert mean.runs == 3
    np.testing.assert_allclose(mean.mean, [2, 4])
    # The 97.5% quantile of t with 2 degrees of freedom; deviations 1 and 2.
    reach = 4.302653 / math.sqrt(3)
    np.testing.assert_allclose(mean.high - mean.mean, [reach, 2 * reach], rtol=1e-6)
    np.testing.assert_allclose(mean.mean - mean.low, [reach, 2 * reach], rtol=1e-6)


def test_a_single_run_has_no_interval() -> None:
    mean = mean_curve([curve([10, 20], [1, 2])])
    assert mean is not None
    assert np.isnan(mean.low).all()
    assert np.isnan(mean.high).all()


def test_a_mean_needs_values_of_all_runs() -> None:
    runs = [curve([10, 20, 30], [0, 1, 2]), curve([15, 25, 40], [10, 10, 10])]
    mean = mean_curve(runs)
    assert mean is not None
    assert mean.steps.tolist() == [15, 20, 25, 30]
    assert mean.mean.tolist() == [5.25, 5.5, 5.75, 6]


def test_a_failed_run_counts_with_its_substitute_after_its_failure() -> None:
    whole = curve([10, 20, 30], [4, 4, 4])
    failed = curve([10, 20], [4, 4], failed_as=-4.0)
    at_once = curve([], [], failed_as=-4.0)
    mean = mean_curve([whole, failed])
    assert mean is not None
    assert mean.mean.tolist() == [4, 4, 0]
    mean = mean_curve([whole, at_once])
    assert mean is not None
    assert mean.mean.tolist() == [0, 0, 0]


def test_unfinished_or_empty_runs_are_in_no_mean() -> None:
    whole, begun = curve([10, 20], [1, 1]), curve([10], [9], ended=False)
    mean = mean_curve([whole, begun, curve([], [])])
    assert mean is not None
    assert mean.runs == 1
    assert mean.mean.tolist() == [1, 1]
    assert mean_curve([begun]) is None
    assert mean_curve([]) is None


def test_long_curves_are_thinned_and_keep_their_ends() -> None:
    steps = np.arange(1, 5001, dtype=float)
    kept = common_steps([RunCurve(0, steps, steps)], most=100)
    assert len(kept) == 100
    assert (kept[0], kept[-1]) == (1, 5000)
    assert common_steps([RunCurve(0, steps, steps)], until=7.5)[-1] == pytest.approx(7)


def test_the_curve_of_runs_that_all_failed_goes_on_to_the_end() -> None:
    failed = [curve([10, 20], [4, 4], failed_as=-4.0), curve([10], [2], failed_as=-4.0)]
    mean = mean_curve(failed, until=40)
    assert mean is not None
    assert mean.steps.tolist() == [10, 20, 21, 40]
    assert mean.mean.tolist() == [3, 0, -4, -4]
    at_once = mean_curve([curve([], [], failed_as=-4.0)] * 2, until=40)
    assert at_once is not None
    assert at_once.steps.tolist() == [0, 40]
    assert at_once.mean.tolist() == [-4, -4]
