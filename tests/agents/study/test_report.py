"""The pages of hand-written studies: complete, unfinished, with failures."""

from __future__ import annotations

import io
import json
import re
import shlex
import shutil
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from support.study_files import COMMAND, STEPS, Ends, make_plan, write_study
from support.study_pages import (
    HUMAN,
    RANDOM,
    page_of,
    shown,
    spoilt,
    study,
    text_of,
    unfinished,
    well,
)
from support.tracked_runs import history, of_type, wandb_records

from agents.launchers.local import Launcher
from agents.study.page.paths import without_paths
from agents.study.plan import StudyPlan
from agents.study.report import study_report
from agents.study.runner import run_study
from envs.errors import UserError
from rlcnn.report import Films, Report
from rlcnn.report.plots import draw
from rlcnn.report.style import Drawing, finish, new_figure, percent, styled
from rlcnn.runs.tracking.tracker import TRACKIO_NAME
from rlcnn.stats import coverage_range


def no_launcher(jobs: int) -> Launcher:
    raise AssertionError(f"{jobs} runs would be done")


@pytest.fixture(autouse=True)
def few_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """2,000 bootstrap samples take seconds, and tests of the statistics check intervals."""
    monkeypatch.setattr("agents.study.runner.study_report", partial(study_report, reps=20))


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures take seconds, and tests of the page check them."""
    monkeypatch.setattr("rlcnn.report.writing.draw", lambda report: {})


def reported(path: Path, plan: StudyPlan, films: Films = "linked", **options: Any) -> str:
    """Makes the whole report and returns its page."""
    output_of(path, plan, films=films, **options)
    return (path / "report.html").read_text()


def output_of(path: Path, plan: StudyPlan, **options: Any) -> str:
    """What a finished study prints when it is reported again."""
    console = Console(file=io.StringIO(), width=200)
    run_study(plan, path, no_launcher, console=console, **options)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_end_names_the_commands_for_curves_of_all_runs(
    no_figures: None, tmp_path: Path
) -> None:
    path, plan = study(tmp_path, well)
    place = shlex.quote(str(path))
    lines = output_of(path, plan).splitlines()
    assert lines[-1] == f"TensorBoard: tensorboard --logdir {place}/runs"
    attempts = [path / directory / "wandb" / "offline-run-1" for directory in ("runs/a", ".")]
    for attempt in attempts:
        attempt.mkdir(parents=True)
    (path / "runs/a" / TRACKIO_NAME).write_text("{}")
    sync, dashboard = output_of(path, plan).splitlines()[-2:]
    command = sync.removeprefix("sync:        wandb sync ")
    listed = subprocess.run(f"ls -d {command}", shell=True, check=True, capture_output=True)
    assert listed.stdout.decode().splitlines() == [str(each) for each in attempts]
    assert dashboard == f"dashboard:   trackio show --project {plan.base.project}"


def test_a_finished_study_is_reported_again_without_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, plan = study(tmp_path, well)
    # Drawn once: that the same report gives the same figures is a test of the page.
    drawings: list[dict[str, Drawing]] = []

    def draw_once(report: Report) -> dict[str, Drawing]:
        if not drawings:
            drawings.append(draw(report))
        return drawings[0]

    monkeypatch.setattr("rlcnn.report.writing.draw", draw_once)
    page = reported(path, plan)
    assert "<figure>" in page
    figures = {file.name: file.read_bytes() for file in (path / "figures").iterdir()}
    assert {"curve-Pong.svg", "curve-Pong.png", "difference.svg", "profile.png"} <= set(figures)
    shutil.rmtree(path / "figures")
    (path / "report.html").unlink()
    assert reported(path, plan) == page
    assert {file.name: file.read_bytes() for file in (path / "figures").iterdir()} == figures


def test_the_page_shows_verdict_runs_and_command(tmp_path: Path) -> None:
    text = text_of(page_of(*study(tmp_path, well)))
    assert "frozen-random is worse than scratch" in text
    # Both arms spread alike, and 20 returns of difference.
    assert f"difference {-20 / (HUMAN - RANDOM):+.3g} in human-normalised score" in text
    for seed in range(5):
        assert re.search(rf"Pong\s+scratch\s+{seed}\s+done\s+{15 + seed}\.0 \(1\.50\)\s+30", text)
    assert "1,000,000" in text
    assert "526" in text
    assert "python scripts/compare_encoders.py --games Pong --arms scratch 'a b'" in text
    assert "/someone" not in text
    assert COMMAND[-1] == "a b"
    assert "rlcnn 0.1.0, torch 2.15" in text
    # The table of calibration for five runs of one game: ours, Welch's, the percentile bootstrap.
    assert re.search(r"lognormal, one arm twice the other\s+94\.\d%\s+91\.\d%\s+88", text)


def test_transfer_is_of_normalised_curves(tmp_path: Path) -> None:
    text = text_of(page_of(*study(tmp_path, well)))
    scale = HUMAN - RANDOM
    # At the end as the scores; the difference of two arms whose seeds are 0 to 4 apart.
    gain = -20 / scale
    row = re.search(r"frozen-random\s+agent steps\s+(\S+ \S+ \S+)\s+(\S+) ", text)
    assert row
    assert row[2] == f"{gain:+.2f}".replace("-", "\N{MINUS SIGN}")
    # Half of the human's score is a return of -3.01: of -5 to -1 three of five end above it.
    assert re.search(r"frozen-random\s+agent steps.*?\s60%, 100%\s", text, re.DOTALL)
    assert "with pretraining" not in text


@pytest.mark.usefixtures("no_figures")
def test_an_unfinished_study_says_what_is_missing_and_gives_no_verdict(tmp_path: Path) -> None:
    path, plan = study(tmp_path, unfinished)
    text = text_of(reported(path, plan, report_only=True))
    assert "No verdict yet" in text
    assert "Pong, scratch, seed 3: 500,000 steps taken" in text
    assert "Pong, frozen-random, seed 4: not begun" in text
    assert "6 of 10 runs done, 4 not finished" in text
    assert "better" not in text
    assert "worse" not in text
    # There are curves; without a comparison no figure shows an aggregate.
    report = shown(path, plan)
    assert report.curves["Pong"]
    assert report.comparison is None


def test_a_report_needs_an_existing_study(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no study to report on"):
        reported(tmp_path / "nowhere", make_plan(), report_only=True)
    assert not (tmp_path / "nowhere").exists()


def test_a_failed_run_is_on_the_page_and_in_the_figures_of_it(tmp_path: Path) -> None:
    path, plan = study(tmp_path, spoilt)
    page = page_of(path, plan)
    text = text_of(page)
    assert "9 of 10 runs done, 1 failed" in text
    assert re.search(r"Pong\s+frozen-random\s+1\s+failed", text)
    assert "the loss became <NaN> & stayed so" in text
    assert "<NaN>" not in page
    assert f"failed and counts with a score of {RANDOM:g}" in text
    scores = [well(run) if run.seed != 1 else RANDOM for run in plan.runs if run.arm != "scratch"]
    mean = (np.mean(scores) - 17) / (HUMAN - RANDOM)
    assert f"difference {mean:+.3g}" in text


@pytest.mark.usefixtures("no_figures")
def test_a_study_in_which_all_failed_has_a_page(tmp_path: Path) -> None:
    text = text_of(reported(*study(tmp_path, lambda run: "failed")))
    assert "10 failed" in text
    assert "No arm learned" in text


@pytest.mark.slow
@pytest.mark.parametrize("ends", [lambda run: "failed", unfinished], ids=["failed", "unfinished"])
def test_every_study_has_figures(tmp_path: Path, ends: Ends) -> None:
    path, plan = study(tmp_path, ends)
    page = reported(path, plan, report_only=True)
    assert "Learning curves" in text_of(page)
    aggregates = list((path / "figures").glob("aggregate-*"))
    assert bool(aggregates) == (ends is not unfinished)


@pytest.mark.parametrize("evaluations, source", [(10, "evaluations during"), (4, "last 100")])
def test_curves_are_of_evaluations_if_there_are_enough(
    tmp_path: Path, evaluations: int, source: str
) -> None:
    assert source in shown(*study(tmp_path, well, evaluations=evaluations)).curves_of


def test_two_arms_two_seeds_and_a_game_without_a_human(tmp_path: Path) -> None:
    plan = make_plan(seeds=2, games=("support.games:Signals-v0",))
    path = write_study(tmp_path / "study", plan, well)
    text = text_of(page_of(path, plan))
    assert "frozen-random may be worse than scratch, but 2 runs per arm only suggest it" in text
    assert "deviations of random play" in text
    assert "optimality gap" not in text
    # What two runs cover is simulated; the table of several intervals begins with three.
    least, greatest = map(percent, coverage_range((2, 2), 1))
    assert "With 2 runs per arm and 1 game, as in this study" in text
    assert f"in {least} to {greatest} of the simulated studies" in text
    assert "no study as small as this one" in text


def test_films_are_strips_with_a_link_unless_the_page_is_to_be_moved(tmp_path: Path) -> None:
    path, plan = study(tmp_path, well, film=True)
    page = page_of(path, plan)
    # The film of the middle one of five runs.
    film = f"runs/Pong--scratch--seed2/videos/{STEPS:012d}.mp4"
    assert f'href="{film}"' in page
    assert "the middle one of 5 finished runs by score (mean return 17.0 over 30 games)" in page
    assert page.count("data:image/png;base64,iVBORw0KGgo") == 2
    assert "<video" not in page
    moved = page_of(path, plan, films="strips")
    assert ".mp4" not in moved
    assert moved.count('class="film"') == 2
    assert page_of(path, plan, films="embedded").count("<video") == 2


def test_a_film_shows_the_middle_run_by_score(tmp_path: Path) -> None:
    plan = make_plan(seeds=4)
    ends = {0: 15.0, 1: "failed", 2: "failed"}
    path = write_study(
        tmp_path / "study",
        plan,
        lambda run: ends.get(run.seed, 17.0) if run.arm == "scratch" else -5.0 + run.seed,
        film=True,
    )
    captions = {film.arm: film.caption for film in shown(path, plan).films}
    assert "Seed 0 after 1,000,000 steps, the middle one of 2 finished" in captions["scratch"]
    assert "Seed 1 after 1,000,000 steps, the middle one of 4" in captions["frozen-random"]
    # The order of pictures is no part of the caption of a film.
    assert not any("left to right" in caption for caption in captions.values())


def test_a_run_that_scored_nothing_is_named_first_and_its_film_shown(tmp_path: Path) -> None:
    path, plan = study(
        tmp_path,
        lambda run: -21.0 if (run.arm, run.seed) == ("frozen-random", 3) else well(run),
        film=True,
    )
    report = shown(path, plan)
    (verdict,) = report.verdicts
    assert "of which scored nothing: 1 of frozen-random" in verdict.sentence
    first, *others = report.films
    assert (first.arm, first.first, "Seed 3 " in first.caption) == ("frozen-random", True, True)
    assert not any(film.first for film in others)
    page = page_of(path, plan)
    text = text_of(page)
    place = text.index("1 run of frozen-random scored nothing")
    assert place < text.index("Films") < text.index("the middle one of 5")
    # Its strip and those of the two arms.
    assert page.count("data:image/png;base64,iVBORw0KGgo") == 3
    assert "a run that scored nothing (mean return" in text
    assert len({film.key for film in report.films}) == 3


def test_a_page_has_no_path_of_the_machine(tmp_path: Path) -> None:
    weights = tmp_path / "here" / "best.safetensors"
    plan = make_plan("scratch", f"frozen:nature@{weights}")
    path = write_study(tmp_path / "study", plan, well)
    document = json.loads((path / "study.json").read_text())
    document["command"] += [f"frozen:nature@{weights}", "--study-dir", str(path)]
    (path / "study.json").write_text(json.dumps(document))
    page = page_of(path, plan)
    assert str(tmp_path) not in page
    assert "best.safetensors" in page
    assert "--study-dir study" in text_of(page)


@pytest.mark.parametrize(
    "text, expected",
    [
        ('"/home/me/w/best.pt"', '"best.pt"'),
        ("frozen:/a/b/ and finetune:nature@/c/d.pt", "frozen:b and finetune:nature@d.pt"),
        ("cannot read ~/runs/x: no file", "cannot read x: no file"),
        # No paths of a machine.
        ("ALE/Pong-v5, runs/pong, 3 steps/s, and/or", "ALE/Pong-v5, runs/pong, 3 steps/s, and/or"),
        ("see https://example.org/a/b", "see https://example.org/a/b"),
    ],
)
def test_paths_of_a_machine_keep_their_last_part(text: str, expected: str) -> None:
    assert without_paths(text) == expected


def test_an_unreadable_film_does_not_prevent_the_report(tmp_path: Path) -> None:
    path, plan = study(tmp_path, well, film=True)
    (path / f"runs/Pong--scratch--seed2/videos/{STEPS:012d}.mp4").write_bytes(b"no film")
    text = text_of(page_of(path, plan))
    assert "cannot be read" in text
    assert "frozen-random is worse than scratch" in text


# -- Weights & Biases ------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_report_is_one_more_run_of_the_studys_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan(seeds=2, track="offline", project="pixels")
    path = write_study(tmp_path / "a study", plan, well, film=True)
    # Real figures take seconds each time, and other tests check them.
    with styled():
        drawn = [finish(new_figure(1.0), name, name, "") for name in ("curve-Pong", "difference")]
    drawings = {drawing.name: drawing for drawing in drawn}
    monkeypatch.setattr("rlcnn.report.writing.draw", lambda report: drawings)
    reported(path, plan)
    (directory,) = (path / "wandb").glob("offline-run-*")
    found = wandb_records(directory)
    run = of_type(found, "run")[0]
    assert run["run_group"] == "a study"
    assert run["job_type"] == "report"
    assert run["project"] == "pixels"
    (row,) = history(found)
    for name in drawings:
        assert row[f"report/{name}._type"] == "image-file"
        kept = directory / "files" / row[f"report/{name}.path"]
        assert kept.read_bytes() == (path / "figures" / f"{name}.png").read_bytes()
    assert row["video/Pong/scratch._type"] == "video-file"
    assert row["report/runs._type"] == "table-file"
    table = json.loads((directory / "files" / row["report/runs.path"]).read_text())
    assert len(table["data"]) == 4

    # The same page is not logged twice; another one goes to the same run.
    reported(path, plan)
    assert len(list((path / "wandb").glob("offline-run-*"))) == 1
    reported(path, plan, films="strips")
    directories = list((path / "wandb").glob("offline-run-*"))
    assert len(directories) == 2
    assert len({name.name.split("-")[3] for name in directories}) == 1
