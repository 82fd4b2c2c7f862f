"""Trains an encoder on labelled images, or resumes such a run: see --help."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from rlcnn.config.cli import given_value
from rlcnn.config.runs import RunOptions, parse_run
from rlcnn.config.script import run_script
from rlcnn.supervised.config import PretrainConfig, read_pretrain_config
from rlcnn.supervised.recipes import DEFAULT_RECIPE, recipe_config


@dataclass(frozen=True)
class Options(PretrainConfig, RunOptions):
    """Train an encoder on labelled images; train_agent.py takes its weights by --weights.

    Examples:
      python scripts/pretrain_encoder.py --data atari:Pong,Breakout
      python scripts/pretrain_encoder.py --recipe resnet9-2018 --data-dir data
      python scripts/pretrain_encoder.py --data folder:photos --encoder resnet9 --augment.crop 64
    """


def main(arguments: list[str]) -> None:
    """Parses a command line and trains."""

    def recipe() -> PretrainConfig:
        name: Any = given_value(arguments, "--recipe") or DEFAULT_RECIPE
        return recipe_config(name, given_value(arguments, "--encoder"))

    run = parse_run(Options, PretrainConfig, arguments, read_pretrain_config, "--recipe", recipe)
    config = run.config
    if run.resume is None:
        config.validate()
    # After the command line: it takes seconds.
    from agents.evaluate.players import load_players
    from rlcnn.supervised.pretraining import pretrain, resume_pretraining

    players = partial(load_players, device=config.device)
    if run.resume is None:
        pretrain(config, run.run_dir, load_policies=players)
    else:
        resume_pretraining(run.resume, run.changes, load_policies=players)


if __name__ == "__main__":
    run_script(main)
