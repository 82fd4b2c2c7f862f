"""Trains an encoder on labelled images, or goes on with such a run: see --help."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.evaluate.players import load_players
from envs.errors import UserError
from rlcnn.config.cli import given_value, parse_options
from rlcnn.config.script import run_script
from rlcnn.data.atari.dataset import PolicyPlay
from rlcnn.runs.directory import RunDirectory
from rlcnn.supervised.config import PretrainConfig, read_pretrain_config
from rlcnn.supervised.pretraining import pretrain, resume_pretraining
from rlcnn.supervised.recipes import DEFAULT_RECIPE, recipe_config


@dataclass(frozen=True)
class Options(PretrainConfig):
    """Train an encoder on labelled images; its weights are then train_agent.py's --weights."""

    run_dir: Path | None = None
    """Directory of a new run; by default runs/ with a name made of the options."""
    config: Path | None = None
    """Take all defaults from the config.json of another run."""
    resume: Path | None = None
    """Go on with the run in this directory; more --epochs extend it."""


def main(arguments: list[str]) -> None:
    """Parses a command line and trains."""
    defaults = default_options(arguments)
    options = parse_options(Options, arguments, defaults)
    config = PretrainConfig(**_fields(options))
    if options.resume is None:
        config.validate()
        pretrain(config, options.run_dir, policies=players(config))
        return
    if options.config is not None or options.run_dir is not None:
        raise UserError("--resume goes on with a run as it is: --config and --run-dir do not apply")
    before = _fields(defaults)
    changes = {name: new for name, new in _fields(config).items() if new != before[name]}
    resume_pretraining(options.resume, changes, policies=players(config))


def players(config: PretrainConfig) -> dict[str, PolicyPlay]:
    """The agents that play in place of chance, by their games."""
    return load_players(config.players, config.frames, seed=config.seed, device=config.device)


def default_options(arguments: list[str]) -> Options:
    """What the command line does not say: a recipe's values, a configuration's, or a run's."""
    recipe, encoder, config, resumed = (
        given_value(arguments, option)
        for option in ("--recipe", "--encoder", "--config", "--resume")
    )
    if resumed is not None:
        return Options(**_fields(read_pretrain_config(RunDirectory.open(resumed))))
    if config is not None:
        if recipe is not None:
            raise UserError("--config and --recipe both say what the defaults are: give one")
        return Options(**_fields(read_pretrain_config(Path(config))))
    chosen: Any = recipe or DEFAULT_RECIPE
    return Options(**_fields(recipe_config(chosen, encoder)))


def _fields(config: PretrainConfig) -> dict[str, Any]:
    return {f.name: getattr(config, f.name) for f in dataclasses.fields(PretrainConfig)}


if __name__ == "__main__":
    run_script(main)
