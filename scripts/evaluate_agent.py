"""Evaluates a run's agent over whole games, and films games: see --help."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from envs.errors import UserError
from envs.protocol import ProtocolName
from rlcnn.config.cli import parse_options
from rlcnn.config.fields import Arg, expand_home
from rlcnn.config.script import run_script
from rlcnn.runs.files import check_writable, write_json_atomic

if TYPE_CHECKING:
    from agents.evaluate.assessment import Assessment

Flag = Annotated[bool, Arg(negatable=False)]


@dataclass(frozen=True)
class EvaluatedAgent:
    """Agent."""

    run_dir: Annotated[Path, Arg(positional=True, metavar="RUN_DIR")]
    """Directory of the run."""
    checkpoint: str | None = None
    """Directory or step of a checkpoint; by default the newest."""
    device: str | None = None
    """auto, cpu, cuda, cuda:1 ...; by default the run's own."""


@dataclass(frozen=True)
class Games:
    """Games."""

    episodes: int | None = None
    """Whole games to play; by default as many as in the run's own evaluation. 0 plays none, to make
    films only."""
    protocol: ProtocolName | None = None
    """Atari conventions, classic or sticky; by default the run's own. The agent keeps the set of
    actions that it learned with."""
    deterministic: Flag = False
    """Always take the most probable (PPO) or most valuable (DQN, PQN) action."""
    stochastic: Flag = False
    """Sample actions (PPO), or take one in 1,000 at random (DQN, PQN), as in a run's own
    evaluations: the default."""
    seed: int | None = None
    """Seed of the games and of the agent's random choices; by default the run's own."""


@dataclass(frozen=True)
class Output:
    """Output."""

    json: str | None = None
    """File to write the result to, as JSON; without a file, or with -, standard output."""
    video: int = 0
    """Number of whole games to film into the run's videos/."""
    video_overlay: Flag = False
    """Show beside the game what the agent sees, which pixels its choice depends on, its action
    probabilities or Q values, and its value over time."""


@dataclass(frozen=True)
class Options(Output, Games, EvaluatedAgent):
    """Evaluate the agent of a run, which may be finished, stopped or still training.

    Examples:
      python scripts/evaluate_agent.py runs/pong
      python scripts/evaluate_agent.py runs/pong --episodes 100 --json result.json
      python scripts/evaluate_agent.py runs/pong --episodes 0 --video 1 --video-overlay
    """


def main(arguments: list[str]) -> None:
    """Parses a command line, evaluates and prints the result."""
    options = parse_options(Options, with_json_file(arguments))
    if options.deterministic and options.stochastic:
        raise UserError("--deterministic and --stochastic exclude each other: give one")
    if options.json not in (None, "-"):
        check_writable("--json", Path(options.json))
    # After the command line: it takes seconds.
    from agents.evaluate.assessment import assess_run

    assessment = assess_run(
        options.run_dir,
        episodes=options.episodes,
        videos=options.video,
        overlay=options.video_overlay,
        protocol=options.protocol,
        deterministic=options.deterministic,
        seed=options.seed,
        checkpoint=options.checkpoint,
        device=options.device,
    )
    if options.json == "-":
        print(json.dumps(assessment.to_json(), indent=2))
        return
    print(*describe(assessment), sep="\n")
    if options.json is not None:
        write_json_atomic(options.json, assessment.to_json())


def with_json_file(arguments: Sequence[str]) -> list[str]:
    """The arguments with "-" inserted after a ``--json`` without a file."""
    whole: list[str] = []
    for argument, following in zip(arguments, [*arguments, "--"][1:], strict=True):
        whole.append(argument)
        # A directory is the run, not the file of --json.
        named = Path(expand_home(following))
        if argument == "--json" and following and (following.startswith("--") or named.is_dir()):
            whole.append("-")
    return whole


def describe(assessment: Assessment) -> list[str]:
    """The result as lines of text."""
    lines = [f"run:         {assessment.run}, step {assessment.step:,}"]
    if assessment.origin:
        lines.append(f"encoder:     began with {assessment.origin}")
    if assessment.evaluation:
        result = assessment.evaluation
        # Other games have no protocol, though every evaluation has the option's value.
        atari = "noop_max" in result.protocol
        games = f"{len(result.returns)} game{'s' * (len(result.returns) != 1)}"
        protocol = f", {result.protocol['name']} protocol" if atari else ""
        lines += [
            f"mean return: {result.mean_return:.2f} (std {result.std:.2f}, {games}{protocol})",
            f"returns:     {' '.join(f'{value:g}' for value in result.returns)}",
        ]
    return lines + [
        f"video:       {film.path} (return {film.episode_return:g})" for film in assessment.films
    ]


if __name__ == "__main__":
    run_script(main)
