"""Pages of hand-written studies, without their figures, which take most of the time."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

import numpy as np

from agents.study.plan import StudyPlan, StudyRun
from agents.study.report import study_report
from agents.study.results import StudyResults, read_result
from agents.study.runner import RANDOM as RANDOM_FILE
from rlcnn.report import Films, Report, render
from rlcnn.runs.files import read_json
from support.study_files import RANDOM_RETURNS, Ends, make_plan, write_study

RANDOM, HUMAN = float(np.mean(RANDOM_RETURNS)), 14.6


def well(run: StudyRun) -> float:
    """Scratch learns, the other arm half as well; seeds differ."""
    return (15.0 if run.arm == "scratch" else -5.0) + run.seed


def spoilt(run: StudyRun) -> float | str:
    return "failed" if (run.arm, run.seed) == ("frozen-random", 1) else well(run)


def unfinished(run: StudyRun) -> float | str:
    return {3: "begun", 4: "waiting"}.get(run.seed, well(run))


def page_of(path: Path, plan: StudyPlan, films: Films = "linked") -> str:
    """The page without its figures, which take most of the time."""
    return render(shown(path, plan), {}, films)


def shown(path: Path, plan: StudyPlan) -> Report:
    runs = [read_result(path, run) for run in plan.runs]
    results = StudyResults(path, plan, runs, read_json(path / RANDOM_FILE))
    return study_report(results, reps=20)


def text_of(page: str) -> str:
    """The text of a page, without markup and with single spaces."""
    body = re.sub(r"data:[^\"]*", "", page.partition("<body>")[2])
    within_words = re.sub(r"</?(span|wbr|button)[^>]*>", "", body)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", within_words)).split())


def study(path: Path, ends: Ends, *arms: str, **options: Any) -> tuple[Path, StudyPlan]:
    plan = make_plan(*arms)
    return write_study(path / "study", plan, ends, **options), plan
