"""Searches from end to end: trainings of a moment, resuming, pruning and refused directories."""

from __future__ import annotations

import csv
import io
import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("optuna", reason='Optuna is not installed: pip install "rlcnn[search]"')

from rich.console import Console
from support.searches import BASE, Shown, WrittenTrainings, clock, search_plan
from support.study_files import InlineLauncher

from agents.config import read_config
from agents.launchers.local import Launcher
from agents.search.outcome import SearchResults
from agents.search.plan import SearchPlan, default_search_dir, read_plan
from agents.search.runner import run_search
from agents.search.session import MOST_FAILED
from agents.train.training import train
from envs.errors import UserError
from rlcnn.runs.directory import RunDirectory
from rlcnn.runs.lock import acquire
from rlcnn.runs.stopping import TrainingStopped


class Search:
    """A search and its output."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.said = io.StringIO()
        self.launchers: list[Any] = []

    def __call__(
        self,
        plan: SearchPlan,
        interrupt_after: int | None = None,
        shown: Shown | None = None,
        **options: Any,
    ) -> SearchResults:
        def make_launcher(jobs: int) -> Launcher:
            inline = InlineLauncher(interrupt_after)
            self.launchers.append(inline if shown is None else WrittenTrainings(shown))
            return self.launchers[-1]

        console = Console(file=self.said, width=400)
        results = run_search(plan, self.path, make_launcher, console=console, **options)
        assert results is not None
        return results

    def rows(self) -> list[dict[str, str]]:
        return list(csv.DictReader((self.path / "trials.csv").read_text().splitlines()))

    def done(self) -> list[str]:
        return [name for launcher in self.launchers for name in launcher.done]


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """Figures take seconds, and another test checks them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rlcnn.report.searches.draw", lambda report: {})
        patch.setattr("rlcnn.report.searches.draw_search", lambda report: {})
        yield


@pytest.fixture
def search(tmp_path: Path) -> Search:
    return Search(tmp_path / "a search")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Search:
    """The tiny plan's search, done by real trainings. Copy its directory to change it."""
    search = Search(tmp_path_factory.mktemp("whole") / "a search")
    assert search(search_plan()).complete
    return search


@pytest.fixture
def finished(search: Search, whole: Search) -> Search:
    shutil.copytree(whole.path, search.path)
    return search


def test_a_search_leaves_trials_finalists_and_a_winner(whole: Search) -> None:
    rows = whole.rows()
    assert [row["state"] for row in rows] == ["done"] * 3
    for number, row in enumerate(rows):
        run = RunDirectory.open(whole.path / "trials" / f"{number:04d}")
        config = read_config(run)
        assert config.seed == 3
        assert config.ppo.n_epochs == int(row["ppo.n-epochs"])
        assert config.ppo.learning_rate == float(row["ppo.learning-rate"])
        summary = run.summary()
        assert summary is not None
        assert float(row["score"]) == float(row["value"]) == summary["eval"]["mean_return"]
        assert float(row["wall_seconds"]) > 0
        assert run.config["labels"] == {
            "group": "a search",
            "tags": [f"trial {number}", "support.games:Signals-v0"],
        }
    finals = sorted(path.name for path in (whole.path / "finals").iterdir())
    # Seeds that no trial had; the present values are trained again, too.
    trials = {name.partition("--")[0] for name in finals}
    assert "0000" in trials
    assert finals == sorted(f"{trial}--seed{seed}" for trial in trials for seed in (4, 5))
    # Only the best trial and the finalists' runs keep their agents.
    kept = [path for path in (whole.path / "trials").iterdir() if (path / "checkpoints").exists()]
    assert len(kept) == 1
    assert "Winner" in (whole.path / "report.html").read_text()


def test_the_winners_configuration_trains(whole: Search, tmp_path: Path) -> None:
    config = read_config(whole.path / "config.json")
    winner = json.loads((whole.path / "config.json").read_text())["search"]["values"]
    assert config.ppo.n_epochs == winner["ppo.n-epochs"]
    assert config.seed == BASE.seed
    run = train(config, tmp_path / "run", console=Console(quiet=True))
    assert (run / "summary.json").exists()


def test_a_finished_search_trains_nothing_again(finished: Search) -> None:
    before = {
        path: path.read_bytes()
        for path in finished.path.rglob("*")
        if path.is_file() and path.name not in ("search.json", "trials.db")
    }
    assert finished(search_plan()).complete
    assert finished.launchers == []
    assert {path: path.read_bytes() for path in before} == before
    finished(read_plan(finished.path), report_only=True)
    assert {path: path.read_bytes() for path in before} == before


def test_more_trials_continue_a_search(finished: Search) -> None:
    finished(search_plan(trials=4, finalists=0))
    assert finished.done() == ["support.games:Signals-v0, trial 3, seed 3"]
    assert len(finished.rows()) == 4


@pytest.mark.parametrize("after", [0, 2])
def test_a_stopped_search_goes_on_and_loses_no_trial(search: Search, after: int) -> None:
    plan = search_plan(finalists=0)
    with pytest.raises(TrainingStopped, match="--resume"):
        search(plan, interrupt_after=after)
    assert [row["state"] for row in search.rows()] == ["done"] * after + ["begun"]
    results = search(plan)
    assert [trial.state for trial in results.trials] == ["done"] * 3
    assert sorted(search.done()) == [f"{plan.game}, trial {number}, seed 3" for number in range(3)]


def test_a_search_stopped_among_its_finalists_goes_on(finished: Search) -> None:
    shutil.rmtree(finished.path / "finals")
    with pytest.raises(TrainingStopped):
        finished(search_plan(), interrupt_after=1)
    assert not (finished.path / "config.json").exists()
    assert finished(search_plan()).complete
    assert len(set(finished.done())) == len(finished.done())


@pytest.mark.parametrize(
    "plan, message",
    [
        (
            search_plan("ppo.n-epochs 1 2 3"),
            "--search ppo.learning-rate log 0.0001 0.01 only there",
        ),
        (search_plan(objective="area"), "--objective score there, area here"),
        (search_plan(base=replace(BASE, total_steps=64)), "--total-steps 32 there, 64 here"),
        (search_plan(base=replace(BASE, seed=4)), "--seed 3 there, 4 here"),
    ],
)
def test_another_search_in_the_same_directory_is_refused(
    whole: Search, plan: SearchPlan, message: str
) -> None:
    with pytest.raises(UserError) as error:
        whole(plan)
    assert "has another plan: " in str(error.value)
    assert message in str(error.value)


def test_a_directory_of_something_else_is_refused(search: Search) -> None:
    search.path.mkdir()
    (search.path / "thesis.tex").touch()
    with pytest.raises(UserError, match=r"is not empty and no search: .* another by --search-dir"):
        search(search_plan())
    with pytest.raises(UserError, match=r"holds no search\.json, so it is no search"):
        read_plan(search.path)
    (search.path / "search.json").write_text('{"plan": {"space": 3}}')
    with pytest.raises(UserError, match=r"search\.json: it holds no plan of a search"):
        read_plan(search.path)


def test_a_search_in_use_is_refused(finished: Search) -> None:
    with acquire(finished.path), pytest.raises(UserError, match="in use by another process"):
        finished(search_plan())


def test_a_space_that_no_agent_fits_is_refused_before_writing(search: Search) -> None:
    for space in (["encoder-options.widht 1 2"], ["ppo.batch-size 9 12"]):
        with pytest.raises(UserError, match="no combination of the space can be trained: "):
            search(search_plan(*space))
    assert not search.path.exists()


def test_a_search_is_found_again_by_its_space() -> None:
    assert default_search_dir(search_plan()) == default_search_dir(search_plan(trials=9))
    others = [search_plan("ppo.n-epochs 1 2"), search_plan(objective="area")]
    assert len({default_search_dir(plan) for plan in [search_plan(), *others]}) == 3


def test_trials_that_fail_are_told_and_many_in_a_row_end_the_search(search: Search) -> None:
    # Nothing is a finite number after the first update.
    spoilt = replace(BASE, ppo=replace(BASE.ppo, max_grad_norm=1e38))
    plan = search_plan("ppo.learning-rate 1e38 1e-3", base=spoilt, finalists=0)
    results = search(plan)
    assert sorted(trial.state for trial in results.trials if trial.state != "skipped") == [
        "done",
        "failed",
    ]
    (reason,) = (trial.reason for trial in results.trials if trial.state == "failed")
    assert "the loss became" in reason
    assert f"{reason}" in search.said.getvalue()

    other = Search(search.path.with_name("other"))
    with pytest.raises(UserError, match=f"the last {MOST_FAILED} trials failed: the loss became"):
        other(search_plan("ppo.learning-rate log 1e37 1e38", base=spoilt, trials=9))


# -- written trainings -----------------------------------------------------------------------------


@pytest.fixture
def fast_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Running trials are looked at each time, as if seconds had passed."""
    monkeypatch.setattr(time, "monotonic", clock())
    # Nothing is trained, so nothing must be buildable.
    monkeypatch.setattr("agents.search.trials.check_builds", lambda config: None)


LONG = replace(BASE, total_steps=10_000)


def by_epochs(config: Any) -> float:
    """The more epochs, the more a training shows."""
    return float(config.ppo.n_epochs)


@pytest.mark.usefixtures("fast_clock")
def test_the_best_trial_wins_and_those_behind_end_early(search: Search) -> None:
    plan = search_plan("ppo.n-epochs range 1 30", base=LONG, trials=16, finalists=2, final_seeds=2)
    results = search(plan, shown=by_epochs)
    done = [trial for trial in results.trials if trial.state == "done"]
    pruned = [trial for trial in results.trials if trial.state == "pruned"]
    assert all(trial.value == trial.values["ppo.n-epochs"] for trial in done)
    assert pruned
    # Not before a fifth of the steps, and with the first 5 trials to compare with.
    assert all(2_000 <= (trial.steps or 0) < 10_000 for trial in pruned)
    assert all(trial.number >= 5 for trial in pruned)
    best = max(trial.value or 0.0 for trial in done)
    assert results.winner == {"ppo.n-epochs": best}
    # The two best and the present values.
    names = [each.name for each in results.finals]
    assert len(names) == 3
    assert names[-1] == "trial 0"
    assert f"winner: --ppo.n-epochs {best:g}" in search.said.getvalue()
    assert f"Against the present values: +{best - 1:.1f}" in search.said.getvalue()


@pytest.mark.usefixtures("fast_clock")
def test_a_trial_ends_when_it_reaches_the_score_or_is_too_late(search: Search) -> None:
    # It takes 100 seconds to show as much as there are epochs, so 12 epochs reach 6 after 50.
    plan = search_plan(
        "ppo.n-epochs range 1 20", base=LONG, trials=12, finalists=1, objective="seconds-to:6"
    )
    results = search(plan, shown=by_epochs)
    for trial in results.trials:
        epochs = trial.values["ppo.n-epochs"]
        assert isinstance(epochs, int)
        if trial.state == "done" and trial.value is not None and trial.value < 1_000:
            assert trial.value == 10 * -(-60 // epochs)
            assert (trial.steps or 0) == 100 * trial.value
        elif trial.state == "done":
            assert epochs < 6
    values = [trial.value for trial in results.trials if trial.value is not None]
    assert results.winner is not None
    assert min(values) == 10 * -(-60 // int(str(results.winner["ppo.n-epochs"])))
    # Finalists are trained to the end, so that there are agents and scores.
    assert all(run.steps == 10_000 for each in results.finals for run in each.results)


@pytest.mark.usefixtures("fast_clock")
def test_a_score_that_no_trial_reaches_is_told(search: Search) -> None:
    plan = search_plan("ppo.n-epochs 1 2 3", base=LONG, finalists=0, objective="seconds-to:99")
    results = search(plan, shown=by_epochs)
    # The nearest is the best.
    assert results.winner == {"ppo.n-epochs": 3}
    assert "No trial reached 99; the best had 3.00" in search.said.getvalue()
    assert {row["value"] for row in search.rows() if row["state"] == "done"} == {"not reached"}
