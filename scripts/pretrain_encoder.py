"""Trains an encoder on labelled images, or resumes such a run: see --help."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from rlcnn.config.script import run_script
from rlcnn.supervised.command_line import PretrainOptions, parse_pretraining


@dataclass(frozen=True)
class Options(PretrainOptions):
    """Train an encoder on labelled images; train_agent.py takes its weights by --weights.

    Examples:
      python scripts/pretrain_encoder.py --data atari:Pong,Breakout
      python scripts/pretrain_encoder.py --recipe resnet9-2018 --data-dir data
      python scripts/pretrain_encoder.py --data folder:photos --encoder resnet9 --augment.crop 64
    """


def main(arguments: list[str]) -> None:
    """Parses a command line and trains."""
    run = parse_pretraining(arguments, Options)
    config = run.config
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
