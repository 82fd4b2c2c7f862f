"""A benchmark's result in tables."""

from __future__ import annotations

import io

from rich.console import Console
from support.benchmark_results import whole_result

from agents.benchmark.report import report


def lines(width: int = 140) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(*report(whole_result()), sep="\n")
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("│ ").split("│")]


def test_every_figure_has_its_row() -> None:
    rows = [cells(line) for line in lines()]
    assert ["environment alone", "6,000", "4,000 - 8,000", "2 threads"] in rows
    assert ["throughput bound", "1,500", "1,000 - 2,000", "one after the other"] in rows
    assert ["ours", "1,150", "800 - 1,500", "2 threads"] in rows
    assert ["efficiency", "0.78", "0.75 - 0.80", "ours / throughput bound"] in rows
    assert ["speedup", "3.50", "3.00 - 4.00", "ours / sb3"] in rows
    assert ["sb3", "30.0", "2,000", "-", "7,080"] in rows
    nature = ["nature", "256x4x84x84", "bf16", "1,684,128", "11.0", "20.0", "31.0", "30.0 - 32.0"]
    assert nature in rows


def test_titles_name_the_training() -> None:
    text = "\n".join(lines())
    assert (
        "PPO, ALE/Pong-v5, nature, 8 environments x 128 steps, 4 epochs of minibatches of 256, cpu"
    ) in text
    assert "DQN, ALE/Pong-v5, nature, 1 environments, 1 updates of 32 in 4 steps, cpu" in text
