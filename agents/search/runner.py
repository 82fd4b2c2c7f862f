"""Runs a search from its plan to the configuration of the winner.

Its directory::

    search.json    the plan, and the command, versions and machine that began it
    trials.db      the trials, in Optuna's SQLite storage
    trials/        0000/, 0001/ ..., each a run of agents.train.training
    finals/        {trial}--seed{N}/, the best trials with other seeds
    failures/      one file with the reason for each run that failed
    logs/          the output of each run
    trials.csv     one row for each trial, in whatever state
    config.json    the winner's, for train_agent.py --config
    report.html    the report as one page
    figures/       the figures of the page, as SVG and PNG
    .lock          held by the one process that works on the search
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from rich.console import Console

from agents.launchers.local import Launcher
from agents.search.finals import finalists
from agents.search.outcome import SearchResults, write_tables
from agents.search.plan import FINALS, SEARCH, TRIALS, SearchPlan, differences
from agents.search.report import search_report
from agents.search.session import Session
from agents.search.space import Values, combinations
from agents.search.trials import Trials, check_builds, require_optuna
from agents.study.cost import estimate, known_speeds
from agents.study.display import StudyDisplay
from agents.study.jobs import make_directories, record_outcome, training_job
from agents.study.results import failure_path
from envs.errors import UserError, in_shell
from rlcnn.report.searches import write_search_report
from rlcnn.report.style import plural
from rlcnn.runs.progress import make_console
from rlcnn.runs.stopping import TrainingStopped

MakeLauncher = Callable[[int], Launcher]
"""Makes a launcher for a number of jobs."""


def run_search(
    plan: SearchPlan,
    path: Path,
    make_launcher: MakeLauncher,
    *,
    dry_run: bool = False,
    report_only: bool = False,
    console: Console | None = None,
) -> SearchResults | None:
    """Does every trial and every run of the finalists that is not done yet, and reports.

    The directory is new or holds a search with the same space, objective and options. A trial that
    a killed search had begun goes on from its last checkpoint. ``dry_run`` prints the cost and
    writes nothing; ``report_only`` trains nothing. Progress goes to standard error by default.

    Returns:
        The results; None for a dry run.

    Raises:
        UserError: an error that a user can correct.
        TrainingStopped: the search was stopped; current runs saved checkpoints.
    """
    console = console or make_console()
    require_optuna()
    plan.validate()
    document = SEARCH.open(path, plan.to_json(), differences)
    _describe(plan, path, console)
    if report_only and not document:
        raise UserError(f"{path} holds no search to report on")
    if dry_run:
        _print_cost(plan, _buildable(plan), make_launcher, console)
        return None
    if not document:
        _buildable(plan)
    with SEARCH.lock(path):
        document = SEARCH.open(path, plan.to_json(), differences)
        if not report_only:
            document = SEARCH.begin(path, plan.to_json(), document)
            make_directories(path, TRIALS)
        trials = Trials(path, plan)
        if not report_only:
            try:
                command = document["command"]
                _run_trials(path, plan, trials, make_launcher, command, console)
                _run_finals(path, plan, trials, make_launcher, command, console)
            except (KeyboardInterrupt, TrainingStopped):
                write_tables(SearchResults.read(path, plan, trials, document))
                raise TrainingStopped(
                    "stopped; the same command resumes the search, as does"
                    f" --resume {in_shell(path)}"
                ) from None
        results = SearchResults.read(path, plan, trials, document)
        lines = [*results.lines(), *write_tables(results)]
        lines.append(f"report: {write_search_report(search_report(results), path)}")
        for line in lines:
            console.print(line)
        return results


def _run_trials(
    path: Path,
    plan: SearchPlan,
    trials: Trials,
    make_launcher: MakeLauncher,
    command: Sequence[str],
    console: Console,
) -> None:
    results = trials.results()
    begun = sum(trial.state == "begun" for trial in results)
    ended = sum(trial.state not in ("begun", "skipped") for trial in results)
    left = plan.most_trials - ended
    if ended or begun:
        console.print(f"{plural(ended, 'trial')} ended before; {begun} go on where they stood")
    if left <= 0 and not begun:
        return
    launcher = make_launcher(max(left, begun))
    Session(path, plan, trials, launcher, command, console).run()


def _run_finals(
    path: Path,
    plan: SearchPlan,
    trials: Trials,
    make_launcher: MakeLauncher,
    command: Sequence[str],
    console: Console,
) -> None:
    finals = finalists(path, plan, trials.results())
    pairs = [pair for each in finals for pair in zip(each.runs, each.results, strict=True)]
    to_do = {run.name: run for run, result in pairs if result.state != "done"}
    if not to_do:
        return
    seeds = ", ".join(map(str, plan.final_seeds))
    console.print(f"finalists: {', '.join(each.name for each in finals)}, with seeds {seeds}")
    make_directories(path, FINALS)
    for run in to_do.values():
        failure_path(path, run).unlink(missing_ok=True)
    launcher = make_launcher(len(to_do))
    display = StudyDisplay(path, to_do, len(pairs) - len(to_do), console, "finals: runs")
    jobs = [training_job(path, run, launcher.threads, command) for run in to_do.values()]
    stopped = False
    try:
        with closing(launcher.run(jobs, display.tick)) as outcomes:
            for outcome in outcomes:
                stopped |= outcome.state == "stopped"
                display.ended(outcome.name, record_outcome(path, to_do[outcome.name], outcome))
    finally:
        display.close()
    if stopped:
        raise TrainingStopped


def _describe(plan: SearchPlan, path: Path, console: Console) -> None:
    size = combinations(plan.space)
    shown = f"{size:,.0f} combinations" if size < 1e6 else "many combinations"
    console.print(f"search {path}: {plan.game}, {plan.effort.trials} trials of {shown}")
    for dimension in plan.space:
        console.print(f"  {dimension.text}")
    better = "less" if plan.objective.sign < 0 else "more"
    console.print(f"objective: {plan.objective.title} ({better} is better)")
    if size < plan.effort.trials:
        console.print(f"the space has {size:,.0f} combinations: each is tried once")
    if plan.current is None:
        console.print("the present values are outside of the space: no trial has them")


def _buildable(plan: SearchPlan) -> Values:
    """Values whose agent can be built: the present ones, or a random combination.

    Raises:
        UserError: none of some random combinations can be built; the line gives a reason.
    """
    generator = random.Random(plan.base.seed)
    drawn = ({each.name: each.drawn(generator) for each in plan.space} for _ in range(20))
    problem: UserError | None = None
    for values in filter(None, [plan.current, *drawn]):
        try:
            check_builds(plan.trial(0, values).config)
            return values
        except UserError as error:
            problem = problem or error
    raise UserError(f"no combination of the space can be trained: {problem}")


def _print_cost(
    plan: SearchPlan, values: Values, make_launcher: MakeLauncher, console: Console
) -> None:
    """Prints what the search costs if no trial is pruned and all are as fast as these values."""
    trials = plan.most_trials
    finals = plan.effort.finalists + (plan.effort.finalists > 0 and plan.current is not None)
    runs = [plan.trial(number, values) for number in range(trials)]
    runs += [run for _ in range(min(finals, trials)) for run in plan.finals(0, values)]
    launcher = make_launcher(len(runs))
    speeds = known_speeds({}, runs, launcher, console)
    cost = estimate(runs, [0] * len(runs), speeds, launcher.workers)
    console.print(f"at most, if no trial is pruned and all are about as fast: {cost}")
