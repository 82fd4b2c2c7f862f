"""Trains an agent from pixels, or goes on with a run: see --help."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.config import TrainConfig, preset_config, read_config
from agents.train.training import resume, train
from envs.errors import UserError
from rlcnn.config.cli import given_value, parse_options
from rlcnn.config.script import run_script
from rlcnn.runs.directory import RunDirectory


@dataclass(frozen=True)
class Options(TrainConfig):
    """Train an agent from pixels. Steps are agent steps: 4 emulator frames each in Atari games."""

    run_dir: Path | None = None
    """Directory of a new run; by default runs/ with a name made of the options."""
    config: Path | None = None
    """Take all defaults from the config.json of another run."""
    resume: Path | None = None
    """Go on with the run in this directory; a greater --total-steps extends it."""


def main(arguments: list[str]) -> None:
    """Parses a command line and trains."""
    defaults = default_options(arguments)
    options = parse_options(Options, arguments, defaults)
    config = train_config(options)
    if options.resume is None:
        train(config, options.run_dir)
        return
    if options.config is not None or options.run_dir is not None:
        raise UserError("--resume goes on with a run as it is: --config and --run-dir do not apply")
    before = _fields(defaults)
    changes = {name: new for name, new in _fields(config).items() if new != before[name]}
    resume(options.resume, changes)


def default_options(arguments: list[str]) -> Options:
    """What the command line does not say: a preset's values, a configuration's, or a run's."""
    preset, algo, config, resumed = (
        given_value(arguments, option) for option in ("--preset", "--algo", "--config", "--resume")
    )
    if resumed is not None:
        return Options(**_fields(read_config(RunDirectory.open(resumed))))
    if config is not None:
        if preset is not None:
            raise UserError("--config and --preset both say what the defaults are: give one")
        return Options(**_fields(read_config(Path(config))))
    preset_and_algo: Any = (preset or "fast", algo or "ppo")
    return Options(**_fields(preset_config(*preset_and_algo)))


def train_config(options: Options) -> TrainConfig:
    """The options that make the run itself."""
    return TrainConfig(**_fields(options))


def _fields(config: TrainConfig) -> dict[str, Any]:
    return {f.name: getattr(config, f.name) for f in dataclasses.fields(TrainConfig)}


if __name__ == "__main__":
    run_script(main)
