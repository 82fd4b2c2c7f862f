"""A benchmark's result as a figure."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.benchmark_results import whole_result

from agents.benchmark.chart import write_chart
from envs.errors import UserError


@pytest.mark.parametrize(
    "suffix, begins", [("png", b"\x89PNG"), pytest.param("pdf", b"%PDF", marks=pytest.mark.slow)]
)
def test_a_figure_is_written_in_the_format_of_its_name(
    suffix: str, begins: bytes, tmp_path: Path
) -> None:
    path = tmp_path / f"speed.{suffix}"
    write_chart(whole_result(), path)
    assert path.read_bytes().startswith(begins)


def test_the_figure_names_what_it_compares(tmp_path: Path) -> None:
    from matplotlib import rc_context

    with rc_context({"svg.fonttype": "none"}):
        write_chart(whole_result(), tmp_path / "speed.svg")
    drawn = (tmp_path / "speed.svg").read_text()
    assert drawn.startswith("<?xml")
    for name in (
        "throughput bound",
        "ours",
        "sb3",
        "nature, bf16",
        "steps per second",
        "PPO, ALE/Pong",
    ):
        assert name in drawn


@pytest.mark.parametrize("name", ["speed.jpg", "speed", "speed.json"])
def test_a_name_of_no_known_format_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r'speed.*" must end in one of \.png, \.svg, \.pdf'):
        write_chart(whole_result(), tmp_path / name)
