"""Measures the speed of training, of its parts and of stable-baselines3: see --help."""
# ruff: noqa: E402

from __future__ import annotations

import time

# Before the slow imports, which count against --minutes.
BEGAN = time.monotonic()

import dataclasses
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console

from agents.benchmark.chart import check_chart_path, write_chart
from agents.benchmark.gpu_suite import SIZES, Scale, run_gpu_suite
from agents.benchmark.report import report
from agents.benchmark.suite import Measurements, Settings, run_benchmark
from agents.config import TrainConfig, preset_config
from agents.registry import Algorithm
from envs.errors import UserError
from rlcnn.config.cli import given_value, parse_options
from rlcnn.config.fields import fields_of
from rlcnn.config.script import run_script
from rlcnn.runs.files import check_writable, write_json_atomic
from rlcnn.runs.progress import make_console

# Options of a training that do not affect its speed.
NotMeasured = tyro.conf.Suppress, tyro.conf.Fixed

# Options that --suite sets itself, and options for --suite alone.
WITHOUT_SUITE = (
    *("parts", "peers", "rounds", "seconds", "encoder-batch", "image-models", "plot"),
    *("encoder", "encoder-options", "mode", "weights", "feature-dtype", "overlap"),
    *("cuda-graphs", "replay-device"),
    *("finetune-factor", "unfreeze-from", "unfreeze-at-step"),
)
WITH_SUITE = ("minutes", "suite-scale")
# Reserved time to end processes and write the last lines.
CLOSING_SHARE, LEAST_CLOSING, MOST_CLOSING = 0.05, 2.5, 10.0


@dataclass(frozen=True)
class Options(Measurements, TrainConfig):
    """Measure the speed of training, and compare it with its parts and with stable-baselines3."""

    env: str = TrainConfig.env
    """Any Atari game, as "ALE/Breakout-v5"."""
    suite: Literal["none", "gpu"] = "none"
    """gpu measures everything worth measuring on a GPU within --minutes in place of --parts: the
    most important first, a line for each figure as soon as it is known."""
    minutes: float = 8.0
    """Time limit of --suite in minutes."""
    suite_scale: Scale = "full"
    """Default sizes of --suite: full, or tiny to check quickly that everything runs."""
    json: Path | None = None
    """JSON file for all results; with --suite it is written after each figure."""
    plot: Path | None = None
    """File of a figure, .png, .svg or .pdf."""

    algo: Annotated[Algorithm, *NotMeasured] = "ppo"
    total_steps: Annotated[int, *NotMeasured] = TrainConfig.total_steps
    track: Annotated[str, *NotMeasured] = "disabled"  # type: ignore[assignment]
    project: Annotated[str, *NotMeasured] = TrainConfig.project
    eval_every: Annotated[int, *NotMeasured] = TrainConfig.eval_every
    eval_episodes: Annotated[int, *NotMeasured] = TrainConfig.eval_episodes
    video_every: Annotated[int, *NotMeasured] = TrainConfig.video_every
    checkpoint_every: Annotated[int, *NotMeasured] = TrainConfig.checkpoint_every
    keep_checkpoints: Annotated[int, *NotMeasured] = TrainConfig.keep_checkpoints
    save_replay: Annotated[bool, *NotMeasured] = TrainConfig.save_replay


def main(arguments: list[str]) -> None:
    """Parses a command line, measures and prints the result."""
    options = parse_options(Options, arguments, default_options(arguments))
    check_suite(options, arguments)
    check_outputs(options)
    if options.suite == "gpu":
        seconds = 60 * options.minutes
        closing = min(MOST_CLOSING, max(LEAST_CLOSING, CLOSING_SHARE * seconds))
        deadline = BEGAN + seconds - closing
        log = partial(print, flush=True)
        run_gpu_suite(settings(options), options.suite_scale, deadline, options.json, log)
        return
    result = run_benchmark(settings(options), make_console().print)
    # Without a terminal, rich would fold the tables to 80 columns.
    console = Console(width=None if Console().is_terminal else 140)
    console.print(*report(result), sep="\n")
    if options.json is not None:
        write_json_atomic(options.json, result.to_json())
    if options.plot is not None:
        write_chart(result, options.plot)


def check_suite(options: Options, arguments: list[str]) -> None:
    """Refuses options without an effect."""
    given = {argument.split("=")[0].replace("_", "-") for argument in arguments}
    on = options.suite != "none"
    for name in WITHOUT_SUITE if on else WITH_SUITE:
        if f"--{name}" in given:
            problem = f"is not for --suite {options.suite}" if on else "is for --suite gpu alone"
            raise UserError(f"--{name} {problem}")
    if not 0 < options.minutes < math.inf:
        raise UserError(f"--minutes {options.minutes} must be finite and more than 0")


def check_outputs(options: Options) -> None:
    """Refuses files that cannot be written, before the measurements."""
    if options.plot is not None:
        check_chart_path(options.plot)
    for option, path in (("--json", options.json), ("--plot", options.plot)):
        if path is not None:
            check_writable(option, path)


def default_options(arguments: list[str]) -> Options:
    """Defaults of the command line: the values of a preset, by default the literature's."""
    preset: Any = given_value(arguments, "--preset") or "zoo"
    train = preset_config(preset, "ppo")
    dqn_num_envs = preset_config(preset, "dqn").num_envs
    if given_value(arguments, "--suite") == "gpu":
        # An unknown scale is refused when the command line is read.
        scale: Any = given_value(arguments, "--suite-scale")
        sizes = SIZES.get(scale, SIZES["full"])
        train = dataclasses.replace(sizes.apply(train), device="cuda")
        dqn_num_envs = sizes.dqn_num_envs
    return Options(**fields_of(TrainConfig, train), dqn_num_envs=dqn_num_envs)


def settings(options: Options) -> Settings:
    """The options as settings of the benchmark."""
    train = TrainConfig(**fields_of(TrainConfig, options))
    return Settings(train=train, **fields_of(Measurements, options))


if __name__ == "__main__":
    run_script(main)
