"""Compares encoders over games and seeds as one study: see --help."""

from __future__ import annotations

import sys
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from agents.config import TrainConfig
from agents.launchers.options import Launching, make_launcher, shared_precision
from agents.presets import preset_config
from envs.errors import UserError
from rlcnn.config.cli import given_fields, given_value, parse_options
from rlcnn.config.fields import Flag, check_options, fields_of
from rlcnn.config.script import run_script
from rlcnn.report.options import Films
from rlcnn.runs.progress import make_console

if TYPE_CHECKING:
    from agents.study.plan import StudyPlan

# Games and arms set these for each training of a study.
SET_BY_STUDY = ("env", "weights", "mode", "explicit")


@dataclass(frozen=True)
class Study:
    """Study."""

    games: str = ""
    """Games, separated by commas: Pong,Breakout, or Gymnasium ids."""
    arms: tuple[str, ...] = ()
    """Arms to compare, at least two, separated by spaces; see above."""
    arm_labels: tuple[str, ...] = ()
    """Names of the arms in tables, figures and on the page, one for each of --arms, in its order;
    by default made from the arms. They may change later: --resume DIRECTORY --arm-labels ..."""
    seeds: int = 5
    """Runs of each arm in each game; their seeds count up from --seed."""
    study_dir: Path | None = None
    """Directory of the study; by default studies/ and a name built from the plan."""
    resume: Path | None = None
    """Continue the study in this directory as planned; by default the same command continues it."""
    retry: Flag = False
    """Continue failed runs, too."""
    dry_run: Flag = False
    """Check everything, print the cost of the study, and stop."""
    report_only: Flag = False
    """Write the report of the runs that are done, and train nothing."""
    explicit: tuple[str, ...] = ()
    """Options of the study that count for arms with presets of their own; a study on disk."""
    report_films: Films = "linked"
    """Films in the report: linked shows strips of pictures with a link to each film; embedded puts
    films of at most 3 MB into the page; strips shows strips only, for a page that is moved
    elsewhere."""


@dataclass(frozen=True)
class Options(TrainConfig, Launching, Study):
    """Compare arms (encoders with their weights) over games and seeds; other options are equal.

    Arms: scratch[:NET], frozen-random[:NET], frozen:WEIGHTS, finetune:WEIGHTS, frozen:NET@WEIGHTS,
    finetune:NET@WEIGHTS. NET is ENCODER[,OPTION=VALUE]..., by default --encoder; WEIGHTS is
    imagenet, a file, or the directory of a run. An arm needs other options of train_agent.py, such
    as a preset, an algorithm or its hyperparameters? Write ARM::OPTION=VALUE,... with "::" behind
    the arm: scratch::preset=iqn,encoder=impala. The same command again continues its study.

    Examples:
      python scripts/compare_encoders.py --games Pong --arms scratch frozen-random --dry-run
      python scripts/compare_encoders.py --games Pong,Breakout --arms scratch frozen:runs/pong
      python scripts/compare_encoders.py --resume studies/pong --retry
    """


def main(arguments: list[str]) -> None:
    """Parses a command line and runs the study."""
    options = parse_options(Options, arguments, default_options(arguments), SET_BY_STUDY)
    check_options(options)
    if options.resume is not None and options.study_dir is not None:
        raise UserError(
            "--resume continues a study in its own directory: --study-dir does not apply"
        )
    # After the command line: it takes seconds.
    from agents.study.runner import default_study_dir, run_study

    plan = study_plan(options, given_fields(Options, arguments, options))
    plan.validate()
    console = make_console()
    results = run_study(
        plan,
        options.resume or options.study_dir or default_study_dir(plan),
        lambda jobs: make_launcher(options, options, jobs, console.print),
        retry=options.retry,
        dry_run=options.dry_run,
        report_only=options.report_only,
        films=options.report_films,
        console=console,
    )
    if results is not None and not results.complete:
        sys.exit(1)


def default_options(arguments: list[str]) -> Options:
    """Defaults of the command line: the values of a preset or a study."""
    preset, algo, resumed = (
        given_value(arguments, option) for option in ("--preset", "--algo", "--resume")
    )
    if resumed is not None:
        from agents.study.runner import read_plan

        plan = read_plan(Path(resumed))
        return Options(
            **fields_of(TrainConfig, plan.base),
            games=",".join(plan.games),
            arms=tuple(arm.text for arm in plan.arms),
            arm_labels=plan.labels,
            explicit=plan.explicit,
            seeds=len(plan.seeds),
        )
    return Options(**fields_of(TrainConfig, preset_config(preset or "fast", algo)))


def study_plan(options: Options, given: Collection[str]) -> StudyPlan:
    """The study that the options describe; ``given`` are those on the command line."""
    from agents.study.arm_options import explicit_defaults
    from agents.study.arms import parse_arm
    from agents.study.plan import StudyPlan, parse_games, with_interim_evaluations

    base = TrainConfig(**fields_of(TrainConfig, options))
    explicit = options.explicit
    arms = tuple(parse_arm(text) for text in options.arms)
    if options.resume is None:
        base = replace(base, precision=shared_precision(options, base))
        base = with_interim_evaluations(base, given)
        if any({"preset", "algo"} & arm.options.keys() for arm in arms):
            explicit = explicit_defaults(base, given)
    if not 0 <= options.seeds <= 1_000_000:
        raise UserError(f"--seeds {options.seeds} must be at least 2 and at most 1000000")
    return StudyPlan(
        games=parse_games(options.games),
        arms=arms,
        seeds=tuple(range(options.seed, options.seed + options.seeds)),
        base=replace(base, env=TrainConfig.env, seed=options.seed),
        labels=options.arm_labels,
        explicit=explicit,
    )


if __name__ == "__main__":
    run_script(main)
