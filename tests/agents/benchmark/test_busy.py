"""What training keeps of its rate beside other programs."""

from __future__ import annotations

import io
import os
from functools import partial
from pathlib import Path

import pytest
from rich.console import Console
from support.tiny_agents import Watched

from agents.benchmark import busy
from agents.measure.timing import Spread
from envs.errors import UserError


def test_busy_loops_compute_until_the_block_ends() -> None:
    with busy.busy_loops(2) as processes:
        assert len(processes) == 2
        for process in processes:
            os.kill(process, 0)
    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


def test_shares_are_taken_round_by_round() -> None:
    rates: busy.Rates = {
        ("dqn", "plain", 0): Spread((100.0, 50.0, 10.0)),
        ("dqn", "plain", 1): Spread((25.0, 10.0, 9.0)),
    }
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(busy.rates_table(rates))
    text = console.export_text()
    assert "50 (10-100)" in text
    assert "10: 0.25 (0.20-0.90)" in text


@pytest.mark.slow
def test_each_subject_is_measured_with_and_without_beside_each_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(busy, "_learner", lambda *_: partial(Watched, tmp_path / "log"))
    options = busy.Options(subjects=("dqn",), busy_loops=(0, 1), rounds=2, seconds=0.01)
    before = dict(os.environ)
    rates = busy.measure(options, lambda _: None)
    assert set(rates) == {("dqn", variant, loops) for variant in busy.VARIANTS for loops in (0, 1)}
    assert all(len(rate.samples) == 2 for rate in rates.values())
    assert dict(os.environ) == before


@pytest.mark.parametrize(
    "arguments", ["--rounds 0", "--busy-loops 0 -1", "--spin-count -5", "--num-threads -1"]
)
def test_numbers_out_of_range_are_refused_in_one_line(arguments: str) -> None:
    with pytest.raises(UserError, match="must be at least 0") as error:
        busy.main(arguments.split())
    assert "\n" not in str(error.value)
