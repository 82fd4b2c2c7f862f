"""Runs a study from its plan to its report.

Its directory::

    study.json     the plan, and the command, versions and machine that began it
    runs/          {game}--{arm}--seed{N}/, each a run of agents.train.training
    failures/      one file with the reason for each run that failed
    logs/          the output of each run
    random.json    returns of an agent that acts at random, under the study's protocol
    results.csv    one row for each run, in whatever state
    report.html    the report as one page
    figures/       the figures of the page, as SVG and PNG
    films/         films of all arms side by side, one for each game
    .lock          held by the one process that works on the study
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from agents.evaluate.random_agent import random_returns
from agents.launchers.local import Launcher
from agents.study.arms import directory_name
from agents.study.cost import known_speeds, print_cost
from agents.study.directory import PlanFile
from agents.study.display import StudyDisplay
from agents.study.jobs import make_directories, record_outcome, training_job
from agents.study.page.side_by_side import film_side_by_side
from agents.study.plan import RUNTIME_OPTIONS, StudyPlan, StudyRun, differences
from agents.study.report import study_report
from agents.study.results import (
    PLAN,
    StudyResults,
    failure_path,
    problems,
    read_result,
    results_table,
    write_results,
)
from agents.train.run_length import notes_on_length
from envs.errors import UserError, in_shell
from envs.registry import game_name
from rlcnn.report import Films, RunResult, write_report
from rlcnn.report.style import plural
from rlcnn.report.tracked import track_report
from rlcnn.runs.commands import commands_for_study
from rlcnn.runs.files import read_json, write_json_atomic
from rlcnn.runs.progress import make_console, print_facts, waiting
from rlcnn.runs.stopping import TrainingStopped

RANDOM = "random.json"
LEAST_RANDOM_EPISODES = 30

STUDY = PlanFile("study", PLAN, "--study-dir")

MakeLauncher = Callable[[int], Launcher]
"""Makes a launcher for a number of jobs."""


def run_study(
    plan: StudyPlan,
    path: Path,
    make_launcher: MakeLauncher,
    *,
    retry: bool = False,
    dry_run: bool = False,
    report_only: bool = False,
    films: Films = "linked",
    console: Console | None = None,
) -> StudyResults | None:
    """Does every run of a study that is not done yet, and reports.

    The directory is new or holds a study of the same plan. ``make_launcher`` is called once, if
    there is something to do. ``retry`` resumes runs that failed, too; ``dry_run`` prints the cost
    and writes nothing; ``report_only`` does no run. Progress goes to standard error by default.

    Returns:
        The results; None for a dry run.

    Raises:
        UserError: an error that a user can correct, before any run begins.
        TrainingStopped: the study was stopped; current runs saved checkpoints.
    """
    console = console or make_console()
    plan.validate()
    document = STUDY.open(path, plan.to_json(), differences)
    results = _results(path, plan)
    to_do = [
        (run, result)
        for run, result in zip(plan.runs, results, strict=True)
        if result.state in ("waiting", "begun") or (retry and result.state == "failed")
    ]
    console.print(
        f"study {path}: {plural(len(plan.games), 'game')} x"
        f" {len(plan.arms)} arms x {len(plan.seeds)} seeds = {len(plan.runs)} runs,"
        f" {len(plan.runs) * plan.base.total_steps:,} agent steps"
    )
    if done := sum(result.state == "done" for result in results):
        console.print(f"{done} of them are done")
    for result in results:
        if result.state == "failed":
            hint = "" if retry else "; --retry resumes it"
            console.print(f"failed: {result.name}: {result.reason}{hint}")
    if report_only:
        if not document:
            raise UserError(f"{path} holds no study to report on")
        return report(path, plan, console, films)
    if to_do:
        for line in _notes_on_arms(plan):
            console.print(line)
        if document and not dry_run:
            # If another process holds it, fail before anything is built and measured.
            STUDY.lock(path).close()
        # A run that resumes from a checkpoint no longer needs its first weights.
        plan.check_builds([run for run, result in to_do if result.steps == 0])
        launcher = make_launcher(len(to_do))
        speeds = known_speeds(document, [run for run, _ in to_do], launcher, console)
        print_cost(to_do, speeds, launcher, console)
        if dry_run:
            return None
        with STUDY.lock(path):
            measured = {name: speed.to_json() for name, speed in speeds.items()}
            document = _begin(path, plan, {str(launcher.threads): measured})
            # A retry that is stopped in the middle is resumed without another --retry.
            for run, _ in to_do:
                failure_path(path, run).unlink(missing_ok=True)
            _run_all(path, plan, [run for run, _ in to_do], launcher, document, console)
    elif dry_run:
        console.print("nothing is left to do")
        return None
    study = report(path, plan, console, films)
    if failed := sum(run.state == "failed" for run in study.runs):
        way_on = f"--resume {in_shell(path)} --retry"
        console.print(f"{plural(failed, 'run')} failed; go on with {way_on}")
    return study


def report(path: Path, plan: StudyPlan, console: Console, films: Films = "linked") -> StudyResults:
    """Prints the results of a study, finished or not, and writes its table and its page.

    The same results give the same files.

    Raises:
        UserError: a file cannot be read or written.
    """
    with STUDY.lock(path):
        random_returns = _random_returns(path, plan, console)
        results = StudyResults(path, plan, _results(path, plan), random_returns)
        _keep_labels(path, plan)
        table = write_results(path, plan, results.runs)
        if all(run.state in ("done", "failed") for run in results.runs):
            film_side_by_side(results, console)
        shown = study_report(results)
        page, drawings = write_report(shown, path, films)
    lines = [line for verdict in shown.verdicts for line in (verdict.sentence, *verdict.notes)]
    found = dict.fromkeys([*lines, *shown.notes]) if lines else [f"no verdict: {shown.no_verdict}"]
    for line in [*results_table(results), *problems(results), *found]:
        console.print(line)
    print_facts(console, [("table", str(table)), ("report", str(page))])
    project, group = plan.base.project, path.resolve().name
    # A page of W&B: trackio has the trainings alone.
    mode = plan.base.track if plan.base.tracker == "wandb" else "disabled"
    track_report(shown, page, drawings, mode, project=project, group=group)
    print_facts(console, commands_for_study(path, project))
    return results


def read_plan(path: Path) -> StudyPlan:
    """The plan of a study on disk; ``UserError`` if there is none, or it is damaged."""
    document = STUDY.read(path)
    try:
        return StudyPlan.from_json(STUDY.plan_of(document))
    except UserError as error:
        raise UserError(f"{path / PLAN}: {error}") from error


def default_study_dir(plan: StudyPlan) -> Path:
    """``studies/<games>-<algorithm>-<digest of the plan>``: the same command finds it again."""
    games = "-".join(directory_name(game_name(game)) for game in plan.games[:3])
    more = f"-and-{len(plan.games) - 3}" if len(plan.games) > 3 else ""
    # A default batch size has the same digest as its number.
    document = replace(plan, base=plan.base.with_batch_size()).to_json()
    compared = {name: document[name] for name in ("games", "arms", "seeds")}
    compared["options"] = {
        name: value for name, value in document["options"].items() if name not in RUNTIME_OPTIONS
    }
    digest = hashlib.sha256(json.dumps(compared, sort_keys=True).encode()).hexdigest()
    return Path("studies") / f"{games}{more}-{'-'.join(plan.algorithms)}-{digest[:8]}"


def _notes_on_arms(plan: StudyPlan) -> list[str]:
    """Lines about the length of trainings; those that not all arms have name their arm."""
    notes = {run.arm: notes_on_length(run.config) for run in plan.runs[: len(plan.arms)]}
    counts = Counter(line for lines in notes.values() for line in lines)
    named = [
        line if counts[line] == len(notes) else f"{arm}: {line}"
        for arm, lines in notes.items()
        for line in lines
    ]
    return list(dict.fromkeys(named))


def _results(path: Path, plan: StudyPlan) -> list[RunResult]:
    return [read_result(path, run) for run in plan.runs]


def _begin(path: Path, plan: StudyPlan, speeds: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Writes ``study.json``, unless another process has begun another study here by now."""
    planned = plan.to_json()
    before = STUDY.open(path, planned, differences)
    make_directories(path, "runs")
    # The plan stays as it was first written: a file of weights may be deleted by now.
    kept = before.get("plan", planned)
    # CPU threads of a run -> kind of training -> speed.
    speeds = {**before.get("speeds", {}), **speeds}
    document: dict[str, Any] = STUDY.begin(path, kept, before, speeds=speeds)
    return document


def _keep_labels(path: Path, plan: StudyPlan) -> None:
    """Writes other labels than before to ``study.json``, so that later reports have them."""
    document = STUDY.read(path)
    planned = STUDY.plan_of(document)
    if tuple(planned.get("labels", ())) != plan.labels:
        kept = {**planned, "labels": list(plan.labels)}
        write_json_atomic(path / PLAN, {**document, "plan": kept})


def _run_all(
    path: Path,
    plan: StudyPlan,
    runs: Sequence[StudyRun],
    launcher: Launcher,
    document: dict[str, Any],
    console: Console,
) -> None:
    by_name = {run.name: run for run in runs}
    display = StudyDisplay(path, by_name, len(plan.runs) - len(runs), console)
    jobs = [training_job(path, run, launcher.threads, document["command"]) for run in runs]
    try:
        with closing(launcher.run(jobs, display.tick)) as outcomes:
            for outcome in outcomes:
                display.ended(outcome.name, record_outcome(path, by_name[outcome.name], outcome))
                write_results(path, plan, _results(path, plan))
    except KeyboardInterrupt:
        write_results(path, plan, _results(path, plan))
        raise TrainingStopped(
            f"stopped; the same command resumes the study, as does --resume {in_shell(path)}"
        ) from None
    finally:
        display.close()


def _random_returns(path: Path, plan: StudyPlan, console: Console) -> dict[str, list[float]]:
    """Returns of random play in each game, measured once and kept in ``random.json``."""
    file = path / RANDOM
    returns: dict[str, list[float]] = read_json(file) if file.exists() else {}
    for game in plan.games:
        if game not in returns:
            console.print(f"{game_name(game)}: playing at random, to compare with")
            # It needs no network: this machine may lack the GPUs of a cluster.
            config = replace(plan.base, env=game, seed=plan.seeds[0], device="cpu").resolve()
            episodes = max(LEAST_RANDOM_EPISODES, plan.base.eval_episodes)
            with waiting(console, f"{game_name(game)}: random play"):
                returns[game] = random_returns(config, episodes)
            write_json_atomic(file, returns)
    return returns
