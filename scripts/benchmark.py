"""Measures how fast training is, beside its parts alone and stable-baselines3's: see --help."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from agents.benchmark.chart import check_chart_path, write_chart
from agents.benchmark.encoder_table import IMAGE_MODELS
from agents.benchmark.report import report
from agents.benchmark.settings import PARTS, Part, Settings
from agents.benchmark.suite import run_benchmark
from agents.cli import given_value, parse_options, run_script
from agents.config import Algorithm, TrainConfig, preset_config
from envs.errors import UserError
from rlcnn.files import write_json_atomic
from rlcnn.progress import make_console

# Options of a training that change nothing in what is measured.
NotMeasured = tyro.conf.Suppress, tyro.conf.Fixed


@dataclass(frozen=True)
class Options(TrainConfig):
    """Measure how fast training is: beside its parts alone, and beside stable-baselines3's."""

    env: str = TrainConfig.env
    """Any Atari game, as "ALE/Breakout-v5"."""
    parts: tuple[Part, ...] = PARTS
    """What to measure: ceilings (the parts of training alone), ppo, dqn (agents), encoders."""
    dqn_num_envs: int = 1
    """Environments of DQN played side by side; --num-envs are those of PPO."""
    peers: tuple[str, ...] = ("sb3",)
    """What to measure beside ours: sb3; uncached, which runs a frozen encoder for every minibatch;
    none, if none is named."""
    rounds: int = 5
    """Samples of each figure; all figures are measured once in each round, in turn."""
    seconds: float = 5.0
    """Length of a sample, in seconds; a sample is at least one iteration of an agent."""
    encoder_batch: int = 256
    """Observations of 84x84x4 in a batch of the encoders' table."""
    image_models: tuple[str, ...] = IMAGE_MODELS
    """torchvision's networks in the encoders' table, at 16x3x224x224; none, if none is named."""
    json: Path | None = None
    """File to write everything to, as JSON."""
    plot: Path | None = None
    """File to draw a figure into, .png, .svg or .pdf."""

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
    """Parses a command line, measures and tells the result."""
    options = parse_options(Options, arguments, default_options(arguments))
    check_outputs(options)
    result = run_benchmark(settings(options), make_console().print)
    # Where there is no terminal, rich would fold the tables to 80 columns.
    console = Console(width=None if Console().is_terminal else 140)
    console.print(*report(result), sep="\n")
    if options.json is not None:
        write_json_atomic(options.json, result.to_json())
    if options.plot is not None:
        write_chart(result, options.plot)


def check_outputs(options: Options) -> None:
    """Refuses files that could not be written, before anything is measured."""
    if options.plot is not None:
        check_chart_path(options.plot)
    for path in (options.json, options.plot):
        if path is not None and not path.absolute().parent.is_dir():
            raise UserError(f"cannot write {path}: there is no such directory")


def default_options(arguments: list[str]) -> Options:
    """What the command line does not say: the values of a preset, the literature's by default."""
    preset: Any = given_value(arguments, "--preset") or "zoo"
    dqn_num_envs = preset_config(preset, "dqn").num_envs
    return Options(**_fields(preset_config(preset, "ppo")), dqn_num_envs=dqn_num_envs)


def settings(options: Options) -> Settings:
    """The options in the benchmark's terms."""
    own = {f.name for f in dataclasses.fields(Settings)} - {"train"}
    return Settings(
        train=TrainConfig(**_fields(options)), **{name: getattr(options, name) for name in own}
    )


def _fields(config: TrainConfig) -> dict[str, Any]:
    return {f.name: getattr(config, f.name) for f in dataclasses.fields(TrainConfig)}


if __name__ == "__main__":
    run_script(main)
