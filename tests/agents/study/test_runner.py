"""Studies of tiny trainings: their files, resuming, and refused directories and options."""

from __future__ import annotations

import csv
import io
import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from support.games import Signals
from support.study_files import InlineLauncher, tiny_plan
from support.tiny_agents import TINY

from agents.config import PQNConfig
from agents.launchers.local import Launcher
from agents.study.plan import StudyPlan
from agents.study.report import study_report
from agents.study.results import PLAN, StudyResults, results_table
from agents.study.runner import default_study_dir, read_plan, run_study
from agents.train.training import resume
from envs.errors import UserError
from rlcnn.encoders import create_encoder
from rlcnn.runs.files import read_json
from rlcnn.runs.lock import acquire
from rlcnn.runs.stopping import TrainingStopped
from rlcnn.weights.load import save_encoder


class Study:
    """A study and its output."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.said = io.StringIO()
        self.launchers: list[InlineLauncher] = []

    def __call__(
        self, plan: StudyPlan, interrupt_after: int | None = None, **options: Any
    ) -> StudyResults | None:
        def make_launcher(jobs: int) -> Launcher:
            self.launchers.append(InlineLauncher(interrupt_after))
            return self.launchers[-1]

        console = Console(file=self.said, width=200)
        return run_study(plan, self.path, make_launcher, console=console, **options)

    def rows(self) -> list[dict[str, str]]:
        return list(csv.DictReader((self.path / "results.csv").read_text().splitlines()))

    def trained(self) -> list[str]:
        """Names of the runs that the last launcher was given, without measurements of speed."""
        return [name for name in self.launchers[-1].done if "seed" in name]


@pytest.fixture(scope="module", autouse=True)
def quick_reports() -> Iterator[None]:
    """Figures and 2,000 bootstrap samples take seconds, and other tests check them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rlcnn.report.writing.draw", lambda report: {})
        patch.setattr("agents.study.runner.study_report", partial(study_report, reps=20))
        yield


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study(tmp_path / "a study")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, StudyResults]:
    """The tiny plan's study, done. Copy it to change it."""
    study = Study(tmp_path_factory.mktemp("whole") / "a study")
    results = study(tiny_plan())
    assert results is not None
    return study.path, results


@pytest.fixture
def finished(study: Study, whole: tuple[Path, StudyResults]) -> Study:
    """A copy of the tiny plan's study, done."""
    shutil.copytree(whole[0], study.path)
    return study


def test_a_study_leaves_a_run_and_a_row_for_each_game_arm_and_seed(
    whole: tuple[Path, StudyResults],
) -> None:
    study, results = Study(whole[0]), whole[1]
    assert results.complete
    rows = study.rows()
    assert len(rows) == 4
    for row in rows:
        run = study.path / row["directory"]
        summary = json.loads((run / "summary.json").read_text())
        assert row["state"] == "done"
        assert float(row["score"]) == summary["eval"]["mean_return"]
        assert int(row["steps"]) == 32
        config = json.loads((run / "config.json").read_text())
        assert config["labels"] == {
            "group": "a study",
            "tags": [row["arm"], "support.games:Signals-v0"],
        }
    # Each seed's games are the same for both arms, and no two seeds' are.
    protocols = [
        json.loads((study.path / row["directory"] / "summary.json").read_text())["eval"]["protocol"]
        for row in rows
    ]
    assert protocols[0] == protocols[1] != protocols[2] == protocols[3]
    assert all(len(v) >= 30 for v in results.random_returns.values())


@pytest.mark.slow
def test_arms_of_long_names_have_tags_of_their_own(study: Study, tmp_path: Path) -> None:
    arms = []
    for end in "ab":
        weights = tmp_path / f"{'x' * 70}{end}.safetensors"
        save_encoder(create_encoder("lenet", (2, 36, 36), features_dim=16), weights)
        arms.append(f"frozen:{weights}")
    plan = tiny_plan(*arms)
    study(plan)
    tags = set()
    for run in plan.runs:
        config = json.loads((study.path / run.directory / "config.json").read_text())
        tags.add(config["labels"]["tags"][0])
    assert len(tags) == 2
    # Weights & Biases refuses a longer one.
    assert max(map(len, tags)) == 64


def test_a_study_ends_with_a_film_of_its_arms_side_by_side(
    whole: tuple[Path, StudyResults],
) -> None:
    path, results = whole
    (about,) = (path / "films").glob("*.json")
    shown = read_json(about)
    assert shown["arms"] == results.plan.arm_names
    middle = [
        sorted(results.runs_of(results.games[0], arm), key=lambda run: (run.score, run.seed))[0]
        for arm in results.plan.arm_names
    ]
    # Of two runs the lower one, and both in the game of the first seed.
    assert shown["runs"] == [run.directory for run in middle]
    assert shown["seed"] == results.plan.seeds[0]
    assert (path / shown["film"]).stat().st_size > 0
    page = (path / "report.html").read_text()
    assert "all arms side by side" in page
    assert f'href="{shown["film"]}"' in page
    (strip,) = (path / "figures").glob("film-*side-by-side.png")
    assert strip.read_bytes().startswith(b"\x89PNG")


def test_finished_runs_are_not_repeated(finished: Study) -> None:
    study = finished
    before = {p: p.read_bytes() for p in study.path.rglob("*") if p.is_file()}
    count = len(study.launchers)
    results = study(tiny_plan())
    assert results is not None
    assert results.complete
    assert len(study.launchers) == count
    assert {p: p.read_bytes() for p in study.path.rglob("*") if p.is_file()} == before


def test_a_stopped_study_resumes(study: Study) -> None:
    # The speeds of two kinds of training are measured first.
    with pytest.raises(TrainingStopped, match="--resume"):
        study(tiny_plan(), interrupt_after=3)
    assert len(study.trained()) == 1
    states = [row["state"] for row in study.rows()]
    assert states == ["done", "waiting", "waiting", "waiting"]
    results = study(tiny_plan())
    assert results is not None
    assert results.complete
    assert len(study.trained()) == 3


def test_a_failed_run_is_shown_and_resumed_only_on_request(study: Study) -> None:
    plan = tiny_plan()
    spoilt = study.path / plan.runs[1].directory
    with pytest.raises(TrainingStopped):
        study(plan, interrupt_after=2)
    # A file where the run's directory belongs: nothing can be trained there.
    spoilt.touch()
    results = study(plan)
    assert results is not None
    assert not results.complete
    row = study.rows()[1]
    assert row["state"] == "failed"
    assert row["reason"] == f"run directory {spoilt} is a file"
    assert [r["state"] for r in study.rows()].count("done") == 3
    said = study.said.getvalue()
    assert f"failed: {plan.runs[1].name}" in said
    assert (
        'arm "frozen-random", seed 0 in "support.games:Signals-v0" failed and counts with' in said
    )

    spoilt.unlink()
    again = study(plan)
    assert again is not None
    assert not again.complete
    assert study.rows()[1]["reason"] == row["reason"]

    retried = study(plan, retry=True)
    assert retried is not None
    assert retried.complete
    assert study.trained() == [plan.runs[1].name]
    assert study.rows()[1]["reason"] == ""


def test_a_game_that_raises_fails_its_run_and_the_study_names_the_way_on(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, calls = Signals.step, itertools.count()

    def fail_once(self: Signals, action: Any) -> Any:
        # Not in the measurements of speed, which come before the study is written.
        if (study.path / PLAN).exists() and next(calls) == 20:
            raise ValueError("the level is missing")
        return step(self, action)

    monkeypatch.setattr(Signals, "step", fail_once)
    plan = tiny_plan()
    study(plan)
    row = study.rows()[0]
    assert row["state"] == "failed"
    assert '"Signals-v0" raised ValueError: the level is missing' in row["reason"]
    # The run's own command is not for a study.
    assert "--resume" not in row["reason"]
    way_on = f"1 run failed; go on with --resume '{study.path}' --retry"
    assert way_on in study.said.getvalue()
    retried = study(plan, retry=True)
    assert retried is not None
    assert retried.complete


def test_a_run_that_diverges_is_a_failed_run(study: Study) -> None:
    # Nothing is a finite number after the first update.
    diverging = replace(TINY, ppo=replace(TINY.ppo, learning_rate=1e38, max_grad_norm=1e38))
    results = study(tiny_plan(base=diverging))
    assert results is not None
    assert {run.state for run in results.runs} == {"failed"}
    assert all("the loss became" in run.reason for run in results.runs)


def test_another_plan_in_the_same_directory_is_refused(finished: Study) -> None:
    study = finished
    with pytest.raises(UserError, match="another plan: --total-steps 32 there, 64 here"):
        study(tiny_plan(base=replace(TINY, total_steps=64)))
    with pytest.raises(UserError, match="another plan: --seeds"):
        study(tiny_plan(seeds=(0, 1, 2)))


def test_a_directory_of_something_else_is_refused(study: Study) -> None:
    study.path.mkdir()
    (study.path / "thesis.tex").touch()
    with pytest.raises(
        UserError, match=r"is not empty and no study: .* choose another by --study-dir"
    ):
        study(tiny_plan())
    assert [path.name for path in study.path.iterdir()] == ["thesis.tex"]


def test_a_dry_run_prints_the_cost_and_writes_nothing(study: Study) -> None:
    assert study(tiny_plan(), dry_run=True) is None
    assert not study.path.exists()
    said = study.said.getvalue()
    assert "1 game x 2 arms x 2 seeds = 4 runs, 128 agent steps" in said
    assert "to do: 4 runs, 128 agent steps, 1 at once: about" in said


def test_weights_that_do_not_fit_are_refused_before_anything_is_written(
    study: Study, tmp_path: Path
) -> None:
    weights = tmp_path / "small.safetensors"
    save_encoder(create_encoder("lenet", (2, 36, 36), features_dim=8), weights)
    with pytest.raises(UserError, match=r'--arms "frozen:small".*features_dim'):
        study(tiny_plan("scratch", f"frozen:{weights}"))
    assert not study.path.exists()
    assert not study.launchers


def test_options_that_no_agent_supports_are_refused_before_writing(
    study: Study,
) -> None:
    # 16 transitions in a rollout: no minibatch of 12 divides them.
    with pytest.raises(UserError, match=r'--arms "scratch": .*12'):
        study(tiny_plan(base=replace(TINY, ppo=replace(TINY.ppo, batch_size=12))))
    assert not study.path.exists()


def test_a_study_is_found_again_by_its_plan() -> None:
    assert default_study_dir(tiny_plan()) == default_study_dir(tiny_plan())
    others = [tiny_plan(seeds=(0, 1, 2)), tiny_plan("scratch", "scratch:impala")]
    assert len({default_study_dir(plan) for plan in [tiny_plan(), *others]}) == 3


def test_a_plan_is_read_from_the_study_itself(finished: Study, tmp_path: Path) -> None:
    study = finished
    assert read_plan(study.path).to_json() == tiny_plan().to_json()
    with pytest.raises(UserError, match=r"holds no study\.json"):
        read_plan(tmp_path)
    (study.path / "study.json").write_text("{}")
    with pytest.raises(UserError, match='"plan" is missing'):
        read_plan(study.path)


SPOILT: list[Callable[[Path], Any]] = [
    lambda path: path.write_text("{"),
    lambda path: path.write_text("{}"),
    lambda path: path.write_text('{"steps": 32, "eval": null}'),
    lambda path: path.write_text(
        path.read_text().replace('"mean_return": ', '"mean_return": NaN, "_": ')
    ),
]


def test_runs_with_damaged_results_are_listed_and_evaluated_again_when_asked(
    finished: Study, whole: tuple[Path, StudyResults]
) -> None:
    study, before, plan = finished, whole[1], tiny_plan()
    summaries = [study.path / run.directory / "summary.json" for run in plan.runs]
    for spoil, summary in zip(SPOILT, summaries, strict=True):
        spoil(summary)
    spoilt = [summary.read_bytes() for summary in summaries]
    results = study(plan)
    assert results is not None
    assert {run.state for run in results.runs} == {"failed"}
    assert all("summary.json" in run.reason for run in results.runs)
    again = study(plan, retry=True)
    assert again is not None
    assert [run.score for run in again.runs] == [run.score for run in before.runs]
    kept = [summary.with_name("summary.damaged.json").read_bytes() for summary in summaries]
    assert kept == spoilt


def test_a_run_that_was_extended_by_hand_counts_as_failed(finished: Study) -> None:
    study, plan = finished, tiny_plan()
    resume(study.path / plan.runs[0].directory, {"total_steps": 64}, console=Console(quiet=True))
    results = study(plan)
    assert results is not None
    assert [run.state for run in results.runs] == ["failed", "done", "done", "done"]
    assert results.runs[0].reason == (
        "its options are not those of the plan: --total-steps 64 there, 32 here; delete its"
        " directory to train it again"
    )


@pytest.mark.slow
def test_a_stopped_retry_resumes_without_another_request(study: Study) -> None:
    plan = tiny_plan()
    with pytest.raises(TrainingStopped):
        study(plan, interrupt_after=2)
    spoilt = [study.path / run.directory for run in plan.runs[:2]]
    for path in spoilt:
        path.touch()
    study(plan)
    for path in spoilt:
        path.unlink()
    with pytest.raises(TrainingStopped):
        study(plan, retry=True, interrupt_after=1)
    results = study(plan)
    assert results is not None
    assert results.complete


@pytest.mark.slow
def test_speeds_are_measured_without_weights_that_no_longer_exist(
    study: Study, tmp_path: Path
) -> None:
    weights = tmp_path / "small.safetensors"
    save_encoder(create_encoder("lenet", (2, 36, 36), features_dim=16), weights)
    plan = tiny_plan("scratch", f"frozen:{weights}")
    study(plan)
    weights.unlink()
    for run in plan.runs:
        (study.path / run.directory / "summary.json").unlink()
    document = json.loads((study.path / "study.json").read_text())
    # As after a run with another number of threads.
    (study.path / "study.json").write_text(json.dumps({**document, "speeds": {}}))
    results = study(plan)
    assert results is not None
    assert results.complete


def test_random_play_needs_no_gpu(finished: Study) -> None:
    study, plan = finished, tiny_plan()
    (study.path / "random.json").unlink()
    # As on a machine without GPUs that uses a cluster with GPUs.
    results = study(replace(plan, base=replace(TINY, device="cuda:9")))
    assert results is not None
    assert results.random_returns


def test_a_study_in_use_is_refused_before_anything_is_measured(study: Study) -> None:
    with pytest.raises(TrainingStopped):
        study(tiny_plan(), interrupt_after=3)
    launchers = len(study.launchers)
    with acquire(study.path), pytest.raises(UserError, match="in use by another process"):
        study(tiny_plan())
    assert len(study.launchers) == launchers


@pytest.mark.parametrize("plan", [3, {}, {"options": 3}, {"options": {"nope": 1}}])
def test_an_invalid_plan_is_refused_in_one_line(study: Study, plan: Any) -> None:
    study.path.mkdir()
    (study.path / "study.json").write_text(json.dumps({"plan": plan}))
    with pytest.raises(UserError) as error:
        study(tiny_plan())
    assert "\n" not in str(error.value)
    assert str(study.path) in str(error.value)


def test_arms_of_different_algorithms_are_one_study(study: Study) -> None:
    base = replace(TINY, encoder="nature", encoder_options={}, pqn=PQNConfig(n_steps=8))
    arms = ("scratch", "scratch::algo=pqn,pqn.batch_size=8", "scratch::num_envs=4,obs_size=44")
    assert study(tiny_plan(*arms, base=base))
    assert [row["state"] for row in study.rows()] == ["done"] * 6
    launchers = len(study.launchers)
    results = study(tiny_plan(*arms, base=base))
    # Found as planned, so nothing is trained again.
    assert len(study.launchers) == launchers
    assert results is not None
    titles = ["game", "arm", "done", "failed", "mean", "minutes", "scores", "of", "the", "seeds"]
    assert results_table(results)[0].split() == titles


def test_a_study_of_pqn_finds_its_runs_as_planned(study: Study) -> None:
    base = replace(TINY, algo="pqn", encoder="nature", pqn=PQNConfig(n_steps=8, batch_size=8))
    assert study(tiny_plan("scratch", "scratch:lenet", seeds=(0, 1), base=base))
    assert [row["state"] for row in study.rows()] == ["done"] * 4
