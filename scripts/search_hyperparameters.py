"""Searches for hyperparameters of a training: see --help."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from agents.config import TrainConfig, read_config
from agents.launchers.options import Launching, make_launcher, shared_precision
from agents.presets import preset_config
from envs.errors import UserError
from rlcnn.config.cli import given_value, parse_options
from rlcnn.config.fields import Arg, Flag, check_options, fields_of
from rlcnn.config.script import run_script
from rlcnn.runs.progress import make_console

if TYPE_CHECKING:
    from agents.search.plan import SearchPlan


@dataclass(frozen=True)
class Search:
    """Search."""

    search: Annotated[tuple[tuple[str, ...], ...], Arg(metavar="NAME VALUE", repeatable=True)] = ()
    """An option to search and its values: NAME VALUE VALUE ..., any of these; NAME range LOW HIGH
    [STEP]; or NAME log LOW HIGH, with equal chances for equal factors. May be repeated. NAME is
    that of an option below, without dashes, or encoder-options.OPTION."""
    objective: str = "score"
    """What is best: score, the final evaluation; area, the mean of the learning curve; or
    seconds-to:18, the wall time until the curve reaches 18."""
    trials: int = 30
    """Trainings with values of the space, all with the same --seed."""
    finalists: int = 2
    """Best trials that are trained again with other seeds, besides the present values; 0 for
    none."""
    final_seeds: int = 3
    """Trainings of each finalist."""
    sampler: Literal["tpe", "random"] = "tpe"
    """How values are proposed: by Optuna's tree-structured Parzen estimator, or at random."""
    prune: Literal["median", "off"] = "median"
    """Whether a trial ends early if its curve is below the median of the others'."""
    search_dir: Path | None = None
    """Directory of the search; by default searches/ and a name built from the plan."""
    resume: Path | None = None
    """Continue the search in this directory; by default the same command continues it."""
    config: Path | None = None
    """Take all defaults from the config.json of a run."""
    dry_run: Flag = False
    """Check everything, print the cost of the search, and stop."""
    report_only: Flag = False
    """Write the report of the trials that are done, and train nothing."""


@dataclass(frozen=True)
class Options(TrainConfig, Launching, Search):
    """Search options of train_agent.py for the best values. The other options are fixed.

    The best trials are trained again with other seeds; the winner's config.json is for
    train_agent.py --config. The same command again continues its search, also after kill -9.

    Examples:
      python scripts/search_hyperparameters.py --search ppo.learning-rate log 1e-4 1e-3 --dry-run
      python scripts/search_hyperparameters.py --objective seconds-to:18 --search obs-size 64 84
      python scripts/search_hyperparameters.py --resume searches/pong --trials 60
    """


def main(arguments: list[str]) -> None:
    """Parses a command line and runs the search."""
    options = parse_options(Options, arguments, default_options(arguments))
    check_options(options)
    if options.resume is not None and options.search_dir is not None:
        raise UserError(
            "--resume continues a search in its own directory: --search-dir does not apply"
        )
    from agents.search.space import parse_space

    space = parse_space(options.search)
    # After the space: it takes seconds.
    from agents.search.plan import default_search_dir
    from agents.search.runner import run_search

    plan = search_plan(options, space)
    plan.validate()
    console = make_console()
    results = run_search(
        plan,
        options.resume or options.search_dir or default_search_dir(plan),
        lambda jobs: make_launcher(options, options, jobs, console.print),
        dry_run=options.dry_run,
        report_only=options.report_only,
        console=console,
    )
    if results is not None and not results.complete:
        sys.exit(1)


def default_options(arguments: list[str]) -> Options:
    """Defaults of the command line: the values of a preset, a configuration or a search."""
    preset, algo, source, resumed = (
        given_value(arguments, option) for option in ("--preset", "--algo", "--config", "--resume")
    )
    if resumed is not None:
        from agents.search.plan import read_plan, texts

        plan = read_plan(Path(resumed))
        effort = plan.effort
        return Options(
            **fields_of(TrainConfig, plan.base),
            search=texts(plan.space),
            objective=plan.objective.text,
            trials=effort.trials,
            finalists=effort.finalists,
            final_seeds=effort.final_seeds,
            sampler=effort.sampler,
            prune=effort.pruning,
        )
    if source is not None and preset is not None:
        raise UserError("--config and --preset both say what the defaults are: give one")
    if source is not None:
        return Options(**fields_of(TrainConfig, read_config(Path(source))))
    base = preset_config(preset or "fast", algo)
    # Films and checkpoints of every trial would take more time and room than they are worth.
    return Options(**fields_of(TrainConfig, replace(base, video_every=0, keep_checkpoints=1)))


def search_plan(options: Options, space: Any) -> SearchPlan:
    """The search that the options describe."""
    from agents.search.objective import parse_objective
    from agents.search.plan import Effort, SearchPlan

    base = TrainConfig(**fields_of(TrainConfig, options))
    if options.resume is None:
        base = replace(base, precision=shared_precision(options, base))
    return SearchPlan(
        space,
        parse_objective(options.objective),
        base,
        Effort(
            options.trials,
            options.finalists,
            options.final_seeds,
            options.sampler,
            options.prune,
        ),
    )


if __name__ == "__main__":
    run_script(main)
