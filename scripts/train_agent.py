"""Trains an agent from pixels, or resumes a run: see --help."""

from __future__ import annotations

from dataclasses import dataclass

from agents.config import TrainConfig, read_config
from agents.presets import preset_config
from rlcnn.config.cli import given_value
from rlcnn.config.runs import RunOptions, parse_run
from rlcnn.config.script import run_script


@dataclass(frozen=True)
class Options(TrainConfig, RunOptions):
    """Train an agent from pixels. Steps are agent steps: 4 emulator frames each in Atari games.

    Examples:
      python scripts/train_agent.py --env ALE/Breakout-v5
      python scripts/train_agent.py --preset iqn --encoder impala
      python scripts/train_agent.py --resume runs/breakout --total-steps 4e6
    """


def main(arguments: list[str]) -> None:
    """Parses a command line and trains."""

    def preset() -> TrainConfig:
        chosen = given_value(arguments, "--preset"), given_value(arguments, "--algo")
        return preset_config(chosen[0] or "fast", chosen[1])

    run = parse_run(Options, TrainConfig, arguments, read_config, "--preset", preset)
    # After the command line: it takes seconds.
    from agents.train.training import resume, train

    if run.resume is None:
        train(run.config, run.run_dir)
    else:
        resume(run.resume, run.changes)


if __name__ == "__main__":
    run_script(main)
