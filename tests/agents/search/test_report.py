"""The page of a search, from written trainings."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

pytest.importorskip("optuna", reason='Optuna is not installed: pip install "rlcnn[search]"')

from rich.console import Console
from support.searches import BASE, WrittenTrainings, clock, search_plan

from agents.config import TrainConfig
from agents.search.runner import run_search


def by_rate(config: TrainConfig) -> float:
    """The score is best at a learning rate of 1e-3, whatever else."""
    return 20 - 1e4 * abs(config.ppo.learning_rate - 1e-3)


def test_the_page_shows_winner_finalists_history_importance_and_every_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "monotonic", clock())
    monkeypatch.setattr("agents.search.trials.check_builds", lambda config: None)
    plan = search_plan(
        "ppo.learning-rate log 1e-4 1e-2",
        "ppo.n-epochs 2 1 10",
        "encoder-options.features_dim range 4 64",
        base=BASE,
        trials=9,
        pruning="off",
    )
    results = run_search(
        plan, tmp_path, lambda jobs: WrittenTrainings(by_rate), console=Console(quiet=True)
    )
    assert results is not None
    page = (tmp_path / "report.html").read_text()
    sections = re.findall(r'<section id="(\w+)">', page)
    assert sections == [
        *("finals", "curves", "history", "importance", "values", "trials", "runs", "repeat")
    ]
    assert f"<code>{results.shown(results.winner or {})}</code>" in page
    for trial in results.trials:
        assert f'<th scope="row" class="n">{trial.number}</th>' in page
    alts = re.findall(r'<img src="data:image/svg\+xml;base64,[^"]+" alt="([^"]*)"', page)
    assert len(alts) == 7
    assert any(alt.startswith("Importance of each option: ppo.learning-rate") for alt in alts)
    assert any("by ppo.n-epochs; the best," in alt for alt in alts)
    names = {path.stem for path in (tmp_path / "figures").glob("*.svg")}
    assert {"history", "importance", "values-ppo.n-epochs"} <= names
    # Nothing is fetched or run.
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert "<script" not in page

    again = run_search(plan, tmp_path, lambda jobs: WrittenTrainings(by_rate), report_only=True)
    assert again is not None
    assert (tmp_path / "report.html").read_text() == page
