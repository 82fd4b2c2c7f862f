"""Trials in Optuna's storage: what is proposed, skipped, found again and pruned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("optuna", reason='Optuna is not installed: pip install "rlcnn[search]"')

from support.searches import BASE, search_plan

from agents.search import trials as module
from agents.search.plan import SearchPlan
from agents.search.trials import DATABASE, Trials
from envs.errors import UserError

check_builds = module.check_builds


@pytest.fixture(autouse=True)
def no_builds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Builds nothing, since that takes a part of a second for each trial."""
    monkeypatch.setattr(module, "check_builds", lambda config: None)


def learning_rates(trials: Trials) -> list[object]:
    return [trial.values["ppo.learning-rate"] for trial in trials.results()]


def propose(trials: Trials, values: Sequence[float]) -> None:
    """Proposes as many trials and ends each with a value."""
    for value in values:
        proposal = trials.propose()
        assert proposal is not None
        trials.end(proposal[0], "done", value, steps=32)


def test_the_first_trial_has_the_present_values(tmp_path: Path) -> None:
    plan = search_plan(base=replace(BASE, ppo=replace(BASE.ppo, learning_rate=3e-3)))
    proposal = Trials(tmp_path, plan).propose()
    assert proposal is not None
    number, run = proposal
    assert (number, run.config) == (0, plan.base)
    assert (run.name, run.directory) == ("support.games:Signals-v0, trial 0, seed 3", "trials/0000")


def test_proposals_depend_on_earlier_trials_and_not_on_stops(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    values = [float(number % 5) for number in range(12)]
    whole = Trials(tmp_path / "one", search_plan())
    propose(whole, values)
    for value in values:
        # As after a stop and a resume each time.
        propose(Trials(tmp_path / "other", search_plan()), [value])
    rates = learning_rates(whole)
    assert learning_rates(Trials(tmp_path / "other", search_plan())) == rates
    assert len(set(rates)) == len(rates)
    # As a person would type them.
    assert all(rate == float(f"{rate:.4g}") for rate in rates)
    assert all(1e-4 <= float(str(rate)) <= 1e-2 for rate in rates)


def test_a_finite_space_is_tried_once_each_and_ends(tmp_path: Path) -> None:
    plan = search_plan("ppo.n-epochs 1 2 3", "ppo.normalize-advantage on off", trials=20)
    assert plan.most_trials == 6
    trials = Trials(tmp_path, plan)
    propose(trials, [1.0] * 6)
    assert trials.propose() is None
    tried = [trial.values for trial in trials.results() if trial.state == "done"]
    assert len({tuple(values.values()) for values in tried}) == 6
    skipped = [trial for trial in trials.results() if trial.state == "skipped"]
    assert all(trial.reason.startswith("same values as trial") for trial in skipped)


def test_values_that_cannot_be_trained_are_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "check_builds", check_builds)
    # A rollout has 16 steps.
    plan = search_plan("ppo.batch-size 8 12 16", "ppo.n-epochs 1 2")
    trials = Trials(tmp_path, plan)
    propose(trials, [1.0] * 4)
    assert trials.propose() is None
    by_state: dict[str, set[object]] = {}
    for trial in trials.results():
        if "same values" not in trial.reason:
            by_state.setdefault(trial.state, set()).add(trial.values["ppo.batch-size"])
    assert by_state == {"done": {8, 16}, "skipped": {12}}


def test_a_space_of_which_nothing_can_be_trained_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(config: object) -> None:
        raise UserError("too wide")

    monkeypatch.setattr(module, "check_builds", refuse)
    monkeypatch.setattr(module, "MOST_SKIPPED", 5)
    with pytest.raises(UserError, match="the last 5 proposals cannot be trained: too wide"):
        Trials(tmp_path, search_plan()).propose()


def test_a_trial_that_was_killed_is_found_again(tmp_path: Path) -> None:
    trials = Trials(tmp_path, search_plan())
    propose(trials, [1.0])
    proposal = trials.propose()
    # Killed between two values of a proposal.
    trials.study.sampler = trials._sampler(0)
    half = trials.study.ask()
    half.suggest_float("ppo.learning-rate", 1e-4, 1e-2, log=True)

    again = Trials(tmp_path, search_plan())
    begun = again.begun()
    assert begun[0] == proposal
    assert [number for number, _ in begun] == [1, 2]
    assert all(run.config.ppo.n_epochs in (1, 2, 3) for _, run in begun)
    assert not again.report(1, {1: 5.0})
    for number, _ in begun:
        again.end(number, "done", 2.0)
    assert [trial.state for trial in again.results()] == ["done"] * 3


@pytest.mark.parametrize("objective, sign", [("score", 1), ("seconds-to:9", -1)])
def test_a_trial_below_the_median_of_the_others_is_to_end(
    objective: str, sign: int, tmp_path: Path
) -> None:
    plan = search_plan(objective=objective)
    trials = Trials(tmp_path, plan)
    for value in range(6):
        proposal = trials.propose()
        assert proposal is not None
        trials.report(proposal[0], {4: sign * float(value)})
        trials.end(proposal[0], "done", float(value))
    proposal = trials.propose()
    assert proposal is not None
    # The median is 2.5.
    assert not trials.report(proposal[0], {4: sign * 2.6})
    assert not trials.report(proposal[0], {4: sign * 2.6})
    trials.end(proposal[0], "pruned")
    proposal = trials.propose()
    assert proposal is not None
    assert trials.report(proposal[0], {4: sign * 2.4})
    off = Trials(tmp_path, replace(plan, effort=replace(plan.effort, pruning="off")))
    (begun,) = off.begun()
    assert not off.report(begun[0], {4: sign * 2.4, 5: sign * 1.0})


def test_importances_are_those_of_ranks(tmp_path: Path) -> None:
    space = ["ppo.n-epochs range 1 40", "ppo.gamma range 0.5 0.9"]
    trials = Trials(tmp_path, search_plan(*space, sampler="random"))
    propose(trials, [1.0] * 3)
    assert trials.importances() == {}
    for _ in range(20):
        proposal = trials.propose()
        assert proposal is not None
        # One trial far away must not decide.
        value = float(proposal[1].config.ppo.n_epochs)
        trials.end(proposal[0], "done", 1e9 if proposal[0] == 9 else value)
    importances = trials.importances()
    assert sum(importances.values()) == pytest.approx(1.0)
    assert list(importances) == ["ppo.n-epochs", "ppo.gamma"]
    assert trials.importances() == importances


def test_a_path_may_have_any_character(tmp_path: Path) -> None:
    path = tmp_path / "a {b}?#% [c]"
    path.mkdir()
    propose(Trials(path, search_plan()), [1.0])
    assert (path / DATABASE).exists()
    assert len(Trials(path, search_plan()).results()) == 1


def test_a_damaged_or_missing_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / DATABASE).write_text("no database, but long enough to be one" * 100)
    with pytest.raises(UserError, match=r"trials\.db cannot be used: .*not a database"):
        Trials(tmp_path, search_plan())
    (tmp_path / DATABASE).unlink()
    (tmp_path / "trials" / "0000").mkdir(parents=True)
    with pytest.raises(UserError, match=r"trials\.db is missing"):
        Trials(tmp_path, search_plan())


def test_a_plan_is_read_as_it_was_written() -> None:
    plan = search_plan(*("ppo.n-epochs 1 2", "ppo.gamma range 0.5 0.9"), objective="seconds-to:18")
    assert SearchPlan.from_json(plan.to_json()) == plan
