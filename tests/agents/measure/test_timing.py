"""Measuring in turn, and choosing what is fastest."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch

from agents.measure.timing import Loop, Spread, fastest, measure_in_turn, round_by_round
from envs.errors import UserError


class Fixed:
    """A runner of known rates that logs its calls."""

    def __init__(self, name: str, log: list[str], *rates: float) -> None:
        self.name, self.log, self.rates = name, log, list(rates)
        log.append(f"{name} opens")

    def measure(self, seconds: float) -> float:
        self.log.append(f"{self.name} {seconds}")
        return self.rates.pop(0)

    def close(self) -> None:
        self.log.append(f"{self.name} closes")


def ignore(line: str) -> None:
    pass


def test_a_spread_is_the_median_between_the_least_and_the_most() -> None:
    spread = Spread((3.0, 9.0, 4.0))
    assert (spread.median, spread.least, spread.most) == (4.0, 3.0, 9.0)
    assert spread.to_json() == {"median": 4.0, "min": 3.0, "max": 9.0, "samples": [3.0, 9.0, 4.0]}


def test_figures_of_one_round_are_set_against_each_other() -> None:
    # The machine was half as fast in the second round: the ratio knows nothing of it.
    ratio = round_by_round(lambda ours, theirs: ours / theirs, Spread((6, 3)), Spread((2, 1)))
    assert ratio.samples == (3, 3)
    with pytest.raises(ValueError, match="shorter"):
        round_by_round(max, Spread((1, 2)), Spread((1,)))


def test_all_are_measured_in_turn_once_in_each_round() -> None:
    log: list[str] = []
    measures = {"a": Fixed("a", log, 1, 2).measure, "b": Fixed("b", log, 30, 40).measure}
    log.clear()
    lines: list[str] = []
    samples = measure_in_turn(measures, rounds=2, seconds=0.5, log=lines.append)
    assert log == ["a 0.5", "b 0.5"] * 2
    assert samples == {"a": (1, 2), "b": (30, 40)}
    assert lines == ["round 1 of 2", "round 2 of 2"]


def make(log: list[str], **rates: tuple[float, float]) -> dict[str, Callable[[], Fixed]]:
    return {
        name: lambda name=name, pair=pair: Fixed(name, log, *pair) for name, pair in rates.items()
    }


def test_the_fastest_variant_is_kept_and_the_others_are_closed() -> None:
    log: list[str] = []
    chosen = fastest(make(log, a=(2, 1), b=(1, 5), c=(3, 3)), seconds=1, log=ignore)
    assert chosen.variant == "b"
    assert chosen.trials == {"a": 2, "b": 5, "c": 3}
    assert chosen.runner.name == "b"
    # One at a time beside the best so far.
    kept = [line for line in log if line.endswith("s")]
    assert kept == ["a opens", "b opens", "a closes", "c opens", "c closes"]


def test_a_variant_that_cannot_run_is_logged_and_left_out() -> None:
    log: list[str] = []
    lines: list[str] = []

    def broken() -> Fixed:
        raise RuntimeError("no compiler\nand a long story")

    chosen = fastest({"compiled": broken, **make(log, a=(2, 1))}, seconds=1, log=lines.append)
    assert chosen.variant == "a"
    assert lines == ["compiled is left out: no compiler"]
    with pytest.raises(UserError, match="none of these can run here: compiled"):
        fastest({"compiled": broken}, seconds=1, log=ignore)


def test_what_the_user_can_mend_ends_the_trial_and_leaves_nothing_open() -> None:
    log: list[str] = []

    def refused() -> Fixed:
        raise UserError("width 0")

    with pytest.raises(UserError, match="width 0"):
        fastest({**make(log, a=(2, 1)), "b": refused}, seconds=1, log=ignore)
    assert log[-1] == "a closes"


def test_a_loop_counts_its_work_and_computes_with_its_own_threads() -> None:
    before = torch.get_num_threads()
    threads: list[int] = []
    closed: list[bool] = []
    loop = Loop(
        lambda: threads.append(torch.get_num_threads()),
        units=3,
        threads=before + 1,
        on_close=lambda: closed.append(True),
    )
    assert len(threads) == 1
    began = time.perf_counter()
    rate = loop.measure(0.02)
    elapsed = time.perf_counter() - began
    # All but the first two calls were timed, over no longer than it took from here.
    assert rate >= 3 * (len(threads) - 2) / elapsed
    assert rate <= 3 * len(threads) / 0.02
    assert set(threads) == {before + 1}
    assert torch.get_num_threads() == before
    assert loop.compile_seconds >= 0
    loop.close()
    assert closed == [True]


def test_what_only_the_first_time_takes_is_measured_separately() -> None:
    waits = iter([0.5])
    loop = Loop(lambda: time.sleep(next(waits, 0)), units=1)
    loop.measure(0.01)
    assert loop.compile_seconds > 0
