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
from typing import TYPE_CHECKING, Any

from rich.console import Console

from agents.benchmark.options import BenchmarkOutput, GpuSuite, Measurements
from agents.config import TrainConfig
from agents.presets import PRESETS, preset_config
from envs.errors import UserError
from rlcnn.config.cli import given_value, parse_options
from rlcnn.config.fields import fields_of
from rlcnn.config.script import run_script
from rlcnn.runs.files import check_writable, write_json_atomic
from rlcnn.runs.progress import make_console

if TYPE_CHECKING:
    from agents.benchmark.suite import Settings

# Options of a training that do not affect its speed.
NOT_MEASURED = (
    *("algo", "total_steps", "track", "project", "eval_every", "eval_episodes", "video_every"),
    *(
        "interim_episodes",
        "interim_max_steps",
        "video_overlay",
        "checkpoint_every",
        "keep_checkpoints",
        "save_replay",
        "tracker",
        "log_model",
    ),
)

# Options that --suite sets itself, and options for --suite alone.
WITHOUT_SUITE = (
    *("parts", "peers", "rounds", "seconds", "encoder-batch", "image-models", "plot"),
    *("encoder", "encoder-options", "mode", "weights", "feature-dtype", "overlap"),
    *("cuda-graphs", "replay-device"),
    *("finetune-factor", "head-factor", "unfreeze-from", "unfreeze-at-step"),
)
WITH_SUITE = ("minutes", "suite-scale")
# Reserved time to end processes and write the last lines.
CLOSING_SHARE, LEAST_CLOSING, MOST_CLOSING = 0.05, 2.5, 10.0


@dataclass(frozen=True)
class Options(TrainConfig, BenchmarkOutput, GpuSuite, Measurements):
    """Measure the speed of training, and compare it with its parts and with stable-baselines3.

    Examples:
      python scripts/benchmark.py
      python scripts/benchmark.py --parts ppo --preset fast --json speed.json --plot speed.png
      python scripts/benchmark.py --suite gpu --minutes 8
    """

    env: str = TrainConfig.env
    """Any Atari game, as "ALE/Breakout-v5"."""


def main(arguments: list[str]) -> None:
    """Parses a command line, measures and prints the result."""
    options = parse_options(Options, arguments, default_options(arguments), NOT_MEASURED)
    check_suite(options, arguments)
    # After the command line: these take seconds.
    from agents.benchmark.chart import write_chart
    from agents.benchmark.gpu_suite import run_gpu_suite
    from agents.benchmark.report import report
    from agents.benchmark.suite import run_benchmark

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
    from agents.benchmark.chart import check_chart_path

    if options.plot is not None:
        check_chart_path(options.plot)
    for option, path in (("--json", options.json), ("--plot", options.plot)):
        if path is not None:
            check_writable(option, path)


def default_options(arguments: list[str]) -> Options:
    """Defaults of the command line: the values of a preset, by default the literature's.

    A preset of one algorithm measures this one.
    """
    preset = given_value(arguments, "--preset") or "zoo"
    train = preset_config(preset)
    choices = PRESETS[train.preset]
    parts: dict[str, Any] = {} if len(choices) > 1 else {"parts": ("ceilings", train.algo)}
    dqn_num_envs = choices.get("dqn", train).num_envs
    if given_value(arguments, "--suite") == "gpu":
        from agents.benchmark.gpu_suite import SIZES

        # An unknown scale is refused when the command line is read.
        scale: Any = given_value(arguments, "--suite-scale")
        sizes = SIZES.get(scale, SIZES["full"])
        train = dataclasses.replace(sizes.apply(train), device="cuda")
        dqn_num_envs = sizes.dqn_num_envs
    return Options(**fields_of(TrainConfig, train), dqn_num_envs=dqn_num_envs, **parts)


def settings(options: Options) -> Settings:
    """The options as settings of the benchmark."""
    from agents.benchmark.suite import Settings

    train = TrainConfig(**fields_of(TrainConfig, options))
    return Settings(train=train, **fields_of(Measurements, options))


if __name__ == "__main__":
    run_script(main)
