"""Compares ways to come by an encoder, over games and seeds, as one study: see --help."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from agents.config import TrainConfig, preset_config
from agents.launchers.local import Launcher, LocalLauncher
from agents.launchers.ray import RayLauncher
from agents.study.arms import parse_arm
from agents.study.plan import StudyPlan, parse_games
from agents.study.runner import default_study_dir, read_plan, run_study
from envs.errors import UserError
from rlcnn.accelerate.devices import resolve_device, resolve_precision
from rlcnn.config.cli import given_value, parse_options
from rlcnn.config.fields import fields_of
from rlcnn.config.script import run_script
from rlcnn.report import Films
from rlcnn.runs.progress import make_console

# Games, arms and seeds say these for each training of a study.
SaidOtherwise = tyro.conf.Suppress, tyro.conf.Fixed


@dataclass(frozen=True)
class Options(TrainConfig):
    """Compare arms, ways to come by an encoder, over games and seeds, all else being equal.

    Arms: scratch[:NET], frozen-random[:NET], frozen:WEIGHTS, finetune:WEIGHTS, frozen:NET@WEIGHTS,
    finetune:NET@WEIGHTS. NET is ENCODER[,OPTION=VALUE]..., by default --encoder; WEIGHTS is
    imagenet, a file, or the directory of a run. The same command again goes on with its study.
    """

    games: str = ""
    """What to play, separated by commas: Pong,Breakout or any Gymnasium id."""
    arms: tuple[str, ...] = ()
    """What to compare: at least two arms."""
    seeds: int = 5
    """Trainings of each arm in each game; their seeds count up from --seed."""
    study_dir: Path | None = None
    """Directory of the study; by default studies/ with a name made of the plan."""
    resume: Path | None = None
    """Go on with the study in this directory, as it was planned."""
    retry: bool = False
    """Go on with runs that failed."""
    dry_run: bool = False
    """Check everything, tell what the study will cost, and stop there."""
    report_only: bool = False
    """Make the report anew of what there is, and train nothing."""
    report_films: Films = "linked"
    """Films in the report: linked, strips of pictures with a link to each film; embedded, with
    those of at most 3 MB in the page itself; strips alone, for a page that is to be moved."""
    launcher: Literal["local", "ray"] = "local"
    """Where runs are done: processes of this machine, or a Ray cluster."""
    workers: int = 0
    """Runs at once on this machine, among which its cores are divided; 0 gives each run one core,
    or, where they compute on a GPU, four."""
    ray_address: str = "auto"
    """Ray cluster, as ray.init takes it; auto finds the one of this machine."""
    ray_cpus: int = 1
    """CPUs of each run on the Ray cluster."""
    ray_gpus: float = 0.0
    """GPUs of each run on the Ray cluster; 0.25 lets four runs share one."""

    env: Annotated[str, *SaidOtherwise] = TrainConfig.env
    weights: Annotated[str, *SaidOtherwise] = TrainConfig.weights
    mode: Annotated[Literal["train", "finetune", "frozen"], *SaidOtherwise] = TrainConfig.mode


def main(arguments: list[str]) -> None:
    """Parses a command line and does the study."""
    options = parse_options(Options, arguments, default_options(arguments))
    if options.workers < 0:
        raise UserError(f"--workers {options.workers} must be at least 0")
    if options.resume is not None and options.study_dir is not None:
        raise UserError("--resume goes on with a study where it is: --study-dir does not apply")
    plan = study_plan(options)
    plan.validate()
    console = make_console()
    results = run_study(
        plan,
        options.resume or options.study_dir or default_study_dir(plan),
        lambda jobs: make_launcher(options, jobs, console.print),
        retry=options.retry,
        dry_run=options.dry_run,
        report_only=options.report_only,
        films=options.report_films,
        console=console,
    )
    if results is not None and not results.complete:
        sys.exit(1)


def default_options(arguments: list[str]) -> Options:
    """What the command line does not say: a preset's values, or those of a study."""
    preset, algo, resumed = (
        given_value(arguments, option) for option in ("--preset", "--algo", "--resume")
    )
    if resumed is not None:
        plan = read_plan(Path(resumed))
        return Options(
            **fields_of(TrainConfig, plan.base),
            games=",".join(plan.games),
            arms=tuple(arm.text for arm in plan.arms),
            seeds=len(plan.seeds),
        )
    preset_and_algo: Any = (preset or "fast", algo or "ppo")
    return Options(**fields_of(TrainConfig, preset_config(*preset_and_algo)))


def study_plan(options: Options) -> StudyPlan:
    """The study that the options describe."""
    base = TrainConfig(**fields_of(TrainConfig, options))
    if base.precision == "auto" and options.launcher == "local" and options.resume is None:
        # The same for every run of the study, wherever it is gone on with; one that a cluster began
        # stays as it was planned, so that its report can be made anywhere.
        base = replace(base, precision=resolve_precision(resolve_device(base.device)))
    if not 0 <= options.seeds <= 1_000_000:
        raise UserError(f"--seeds {options.seeds} must be at least 2 and at most 1000000")
    return StudyPlan(
        games=parse_games(options.games),
        arms=tuple(parse_arm(text) for text in options.arms),
        seeds=tuple(range(options.seed, options.seed + options.seeds)),
        base=replace(base, env=TrainConfig.env, seed=options.seed),
    )


def make_launcher(options: Options, jobs: int, tell: Any) -> Launcher:
    """Where the runs of the study are done."""
    if options.launcher == "ray":
        return RayLauncher(
            options.ray_address,
            options.ray_cpus,
            options.ray_gpus,
            jobs,
            options.num_threads,
            tell,
        )
    gpu = resolve_device(options.device) != "cpu"
    return LocalLauncher(options.workers, jobs, options.num_threads, gpu, tell)


if __name__ == "__main__":
    run_script(main)
