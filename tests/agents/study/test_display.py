"""What the display of a study shows."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path

import pytest
from rich.console import Console
from support.study_files import tiny_plan

from agents.study.display import StudyDisplay


def test_a_run_has_a_bar_once_it_has_begun_under_its_own_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = tiny_plan("scratch", "frozen:/far/[red]:eyes:")
    waiting, begun = plan.runs[:2]
    (tmp_path / begun.directory).mkdir(parents=True)
    row = {"step": 16, "rollout/ep_rew_mean": 2.5}
    (tmp_path / begun.directory / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    said = io.StringIO()
    console = Console(file=said, force_terminal=True, width=200, color_system=None)
    display = StudyDisplay(tmp_path, {run.name: run for run in plan.runs}, 0, console)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 2)
    # As a cluster has it, which is given all runs at once.
    display.tick([run.name for run in plan.runs])
    display.close()
    shown = said.getvalue()
    assert begun.name in shown
    assert "[red]:eyes:" in shown
    assert "16/32" in shown
    assert "return 2.5" in shown
    assert waiting.name not in shown
