"""What is shown while something runs: its rate, bars on terminals, and lines elsewhere."""

from __future__ import annotations

import io
import math
import re
import time
from typing import Any

import pytest
from rich.console import Console

from rlcnn.runs.compact import count_text, duration_text, rate_text, score_text
from rlcnn.runs.progress import (
    ProgressDisplay,
    StepRate,
    Task,
    print_facts,
)


def test_the_rate_counts_updates_for_as_long_as_they_take() -> None:
    rate = StepRate()
    assert rate.value == 0
    # A second at 1,000 steps/s, then 9 seconds of learning in which 10 are taken: 101 steps/s.
    for _ in range(30):
        rate.add(1000, 1.0)
        after_the_burst = rate.value
        rate.add(10, 9.0)
    assert 80 < rate.value < 101 < after_the_burst < 120


def test_the_rate_follows_a_change() -> None:
    rate = StepRate(time_constant=30)
    for speed in (100, 500):
        for _ in range(150):
            rate.add(speed, 1.0)
        assert rate.value == pytest.approx(speed, rel=0.01)


# -- displays --------------------------------------------------------------------------------------


class Clock:
    """A clock that moves only when it is told to; replaces the waits of displays, too."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)

    def run(
        self, display: ProgressDisplay, seconds: float, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Lets the thread of a display without a terminal work for so long."""
        end = self.now + seconds

        def wait(timeout: float) -> bool:
            over = self.now + timeout > end
            self.now = end if over else self.now + timeout
            return over

        monkeypatch.setattr(display._closed, "wait", wait)
        display._print_lines()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def terminal(width: int, encoding: str = "utf-8") -> Console:
    file: Any = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    return Console(file=file, force_terminal=True, width=width, color_system=None, height=40)


def rows(task: Task, width: int, encoding: str = "utf-8") -> list[str]:
    console = terminal(width, encoding)
    lines = console.render_lines(task.rows(width), pad=False)
    return ["".join(segment.text for segment in line) for line in lines]


@pytest.mark.parametrize("width", [40, 60, 80])
@pytest.mark.parametrize("label", ["training", "evaluating 12/30", "Pong, frozen:runs/a/b, seed 3"])
@pytest.mark.parametrize(
    ("total", "rate"),
    [(1, 0.0), (30, 0.0001), (9_999, 7.0), (2_000_000, 110.0), (999_990_000, 9e3), (10**9, 2e6)],
)
def test_no_row_is_wider_than_the_console_and_no_label_is_lost(
    width: int, label: str, total: int, rate: float, clock: Clock
) -> None:
    task = Task(label, total, status="return -20.3")
    clock.now += 1e6
    task._rate.add(int(1e6 * rate), 1e6)
    for done in (0, total // 3, total):
        task.done = done
        for encoding in ("utf-8", "ascii"):
            shown = rows(task, width, encoding)
            "\n".join(shown).encode(encoding)
            assert max(map(len, shown)) <= width
            whole = "\n".join(shown)
            for expected in (label, "%", "elapsed", " left", "return -20.3"):
                assert expected in whole
            assert re.search(r"(\d|\?)[kM]?/(s|min|h)\b", whole)
            assert re.search(r"^\d+(\.\d+)?[kMG]?/\d+(\.\d+)?[kMG]?\b", whole, re.MULTILINE)


def test_the_numbers_of_an_ordinary_training_take_one_row_of_60_columns(clock: Clock) -> None:
    task = Task("training", 2_000_000, status="return -20.3")
    clock.now += 6
    task.reach(660)
    task.done = 520_000
    bar, numbers = rows(task, 60)
    assert numbers == "0.52M/2.00M  110/s  0:06 elapsed  3h44m left  return -20.3"
    assert bar.startswith("training  ")
    assert bar.endswith("  26%")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (count_text(0, 1), "0/1"),
        (count_text(9_000, 9_999), "9000/9999"),
        (count_text(520, 20_000), "0.5k/20.0k"),
        (count_text(10**6, 10**6), "1.00M/1.00M"),
        (count_text(0, 2_000_000), "0/2.00M"),
        (count_text(8_192, 2_000_000), "8.2k/2.00M"),
        (count_text(99_999, 2_000_000), "100.0k/2.00M"),
        (count_text(100_000, 2_000_000), "0.10M/2.00M"),
        (count_text(1_234_567, 10**9), "1.23M/1.000G"),
        (rate_text(0), "?/s"),
        (rate_text(12_345), "12k/s"),
        (rate_text(1), "1.0/s"),
        (rate_text(0.5), "30.0/min"),
        (rate_text(1 / 7200), "0.5/h"),
        (duration_text(3599.9), "59:59"),
        (duration_text(3600), "1h00m"),
        (duration_text(86400 * 3 + 3600 * 4), "3d04h"),
        (duration_text(86400 * 123), "123d"),
        (duration_text(1e12), ">999d"),
        (duration_text(math.inf), "?"),
        (score_text(-20.31), "-20.3"),
        (score_text(1_234_567), "1.235e+06"),
    ],
)
def test_numbers_take_few_columns(text: str, expected: str) -> None:
    assert text == expected


def test_without_a_terminal_a_line_comes_every_half_minute_whatever_goes_on(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = io.StringIO()
    with ProgressDisplay(Console(file=said, width=80)) as display:
        task = display.add("training", 2_000_000)
        clock.now += 10
        assert task.reach(1_100)
        task.status = "return -20.3"
        task.begin_phase("filling the replay")
        with task.activity("evaluating", 30) as on_game:
            on_game(12.0)
            clock.run(display, 90, monkeypatch)
        clock.run(display, 30, monkeypatch)
        task.begin_phase("update")
        clock.run(display, 30, monkeypatch)
    assert said.getvalue().splitlines() == [
        "evaluating 1/30  1.1k/2.00M  110/s  0:40 elapsed  5h02m left  return -20.3",
        "evaluating 1/30  1.1k/2.00M  110/s  1:10 elapsed  5h02m left  return -20.3",
        "evaluating 1/30  1.1k/2.00M  110/s  1:40 elapsed  5h02m left  return -20.3",
        "filling the replay  1.1k/2.00M  110/s  2:10 elapsed  5h02m left  return -20.3",
        "update  1.1k/2.00M  110/s  2:40 elapsed  5h02m left  return -20.3",
    ]


def test_time_of_evaluations_does_not_count_in_the_rate(clock: Clock) -> None:
    task = Task("training", 1000)
    for done in range(0, 500, 100):
        task.reach(done)
        with task.activity("evaluating"):
            clock.now += 60
        clock.now += 10
    assert task._rate.value == pytest.approx(10)


def test_what_is_done_in_less_than_a_second_has_a_rate_too(clock: Clock) -> None:
    task = Task("evaluating", 104, done=100)
    clock.now += 0.5
    task.reach(104)
    assert task.parts() == ["104/104", "8.0/s", "0:00 elapsed", "0:00 left"]


def test_the_label_names_an_update_only_once_it_has_lasted_a_second(clock: Clock) -> None:
    task = Task("training", 10)
    task.begin_phase("update")
    clock.now += 0.9
    assert task.title() == "training"
    clock.now += 0.1
    # As DQN does with every few steps that fill its replay.
    task.begin_phase("update")
    assert task.title() == "update"
    task.begin_phase("")
    assert task.title() == "training"


def test_the_clock_of_a_terminal_moves_while_the_caller_is_busy(clock: Clock) -> None:
    console = terminal(60)
    with ProgressDisplay(console) as display:
        display.add("training", 100)
        clock.now += 42
        assert display._live is not None
        # As its own thread does.
        display._live.refresh()
    console.file.flush()
    shown = console.file.buffer.getvalue().decode()  # type: ignore[attr-defined]
    assert "0:42 elapsed" in shown


def test_facts_are_wrapped_on_a_terminal_alone_and_paths_stay_whole() -> None:
    path = "runs/" + 50 * "x"
    facts = [("environment", "ALE/Pong-v5, " + 12 * "word "), ("tracking", f"offline, {path}")]
    console = terminal(60)
    print_facts(console, facts, wrapped=True)
    console.file.flush()
    shown = console.file.buffer.getvalue().decode().splitlines()  # type: ignore[attr-defined]
    assert shown[0].startswith("environment: ALE/Pong-v5, word")
    assert shown[1].startswith(13 * " " + "word")
    assert len(shown[0]) <= 60
    assert path in "".join(shown)
    piped = io.StringIO()
    print_facts(Console(file=piped, width=20), facts, wrapped=True)
    assert len(piped.getvalue().splitlines()) == 2
