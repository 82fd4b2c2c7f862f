"""Rates measured one after the other within a time limit."""

from __future__ import annotations

import multiprocessing
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.tiny_agents import Watched

from agents.benchmark import timed_rows
from agents.benchmark.timed_rows import Row, RowResult, measure_rows


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def row(name: str, log: Path, fails: str = "", **options: Any) -> Row:
    rate = options.pop("rate", None)
    return Row(name, partial(Watched, log, fails, steady_rate=rate), 1, "cpu", **options)


def measure(rows: list[Row], seconds: float, patience: float = 60.0) -> list[RowResult]:
    results: list[RowResult] = []
    measure_rows(rows, time.monotonic() + seconds, results.append, patience=patience)
    assert multiprocessing.active_children() == []
    assert [result.name for result in results] == [row.name for row in rows]
    return results


def test_rows_are_set_beside_those_before_them(log: Path) -> None:
    rows = [
        row("environments", log, rate=100.0),
        row("update", log, rate=160.0, unit="samples"),
        row("ours", log, rate=30.0, bounds={"environments": 1, "update": 4}),
        row("ours, faster", log, rate=36.0, bounds={"environments": 1, "missing": 4}),
        row("peer", log, rate=12.0, ours=("ours", "ours, faster", "missing")),
    ]
    results = measure(rows, 600)
    assert [result.rate for result in results] == [100, 160, 30, 36, 12]
    _, update, ours, faster, peer = results
    # A quarter of the update's samples is less than the environments' steps.
    assert (ours.bound, ours.share) == (40, 0.75)
    assert (faster.bound, faster.share) == (None, None)
    assert peer.speedup == 3
    assert "160 samples/s" in str(update)
    assert "0.75 of the bound of 40" in str(ours)
    assert "ours is 3.0 times as fast" in str(peer)
    assert ours.to_json()["peak_host_bytes"] > 2**20
    assert ours.to_json()["peak_device_bytes"] is None


def test_what_goes_wrong_in_a_row_is_recorded_and_the_next_one_is_measured(log: Path) -> None:
    broken = ["refused", "breaks", "fills memory", "dies"]
    *failed, last = measure([*(row(fails, log, fails) for fails in broken), row("ok", log)], 600)
    assert [(result.status, result.reason) for result in failed] == [
        ("failed", "width 0"),
        ("failed", "ZeroDivisionError: in learning"),
        ("failed", "tried to allocate 1 TB"),
        ("failed", "a measured process ended with status 3"),
    ]
    assert str(failed[0]) == "refused: failed (width 0)"
    assert failed[0].to_json()["rate"] is None
    assert last.status == "measured"


@pytest.mark.slow
def test_a_row_that_hangs_is_killed_and_the_next_one_is_measured(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 3 seconds for the first row and 6 for the second, which needs a fork and no more.
    monkeypatch.setattr(timed_rows, "_OVERRUN", 0.03)
    hangs, ok = measure([row("hangs", log, "hangs"), row("ok", log)], 200, patience=1.0)
    assert hangs.status == "killed"
    assert hangs.reason.startswith("not done after ")
    assert ok.status == "measured"


def test_no_row_goes_on_beyond_the_deadline(log: Path) -> None:
    hangs, late = measure([row("hangs", log, "hangs"), row("late", log)], 1.0)
    assert hangs.status == "killed"
    assert late.status == "skipped"
    assert late.reason.endswith("s are left")
    # Not even begun.
    assert not log.exists()


def test_what_needs_a_gpu_is_not_measured_on_a_cpu(log: Path) -> None:
    graphs, after = measure([row("graphs", log, gpu_only=True), row("after", log)], 600)
    assert graphs.status == "not measured on a CPU"
    assert str(graphs) == "graphs: not measured on a CPU"
    assert after.status == "measured"
