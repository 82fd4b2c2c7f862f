"""Films the agents of several runs side by side: see --help."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Interval

from envs.protocol import ProtocolName
from rlcnn.config.cli import parse_options
from rlcnn.config.fields import MAX_STEPS, WHOLE, Arg, Count, SeedNumber, check_options
from rlcnn.config.script import run_script
from rlcnn.runs.tracking.tracker import TrackMode

Flag = Annotated[bool, Arg(negatable=False)]


@dataclass(frozen=True)
class FilmedAgents:
    """Agents."""

    runs: Annotated[tuple[str, ...], Arg(positional=True, metavar="RUN_DIR[@STEP]...")]
    """Directories of two or more runs of one game; with @STEP an earlier checkpoint of the run,
    with @0 its untrained agent."""
    device: str | None = None
    """auto, cpu, cuda, cuda:1 ...; by default each run's own."""


@dataclass(frozen=True)
class Games:
    """Games."""

    games: Count = 1
    """Games, each in a film of its own."""
    seed: SeedNumber = 0
    """Seed of the first game, which every agent plays, and of the agents' random choices; the next
    games have the next seeds."""
    protocol: ProtocolName | None = None
    """Atari conventions, classic or sticky; by default the first run's own. The actions stay the
    agents'."""
    deterministic: Flag = False
    """Always take the most probable (PPO) or most valuable action."""
    max_steps: Annotated[int | None, Interval(ge=1, le=MAX_STEPS), WHOLE] = None
    """Agent steps after which a game ends; by default the protocol's."""


@dataclass(frozen=True)
class Output:
    """Output."""

    out: Path = Path("films")
    """Directory of the films."""
    video_overlay: Flag = False
    """Show beside each game what the agent sees, which pixels its choice depends on, its action
    probabilities or Q values, and its value over time."""
    track: TrackMode = "offline"
    """Weights & Biases; offline needs no account: `wandb sync` uploads it later. WANDB_MODE and
    WANDB_DISABLED, where they are set, give the default."""
    project: str = "rlcnn"
    """Project in Weights & Biases."""


@dataclass(frozen=True)
class Options(Output, Games, FilmedAgents):
    """Film the agents of several runs side by side, each playing the game of the same seed.

    Examples:
      python scripts/film_agents.py runs/pong-ppo runs/pong-dqn
      python scripts/film_agents.py runs/pong@0 runs/pong --video-overlay
      python scripts/film_agents.py runs/a runs/b runs/c --games 3 --max-steps 1000
    """


def main(arguments: list[str]) -> None:
    """Parses a command line, films and prints the films and their returns."""
    options = parse_options(Options, arguments, Options(runs=()))
    check_options(options)
    # After the command line: it takes seconds.
    from agents.evaluate.side_by_side import film_runs, track_films

    films = film_runs(
        options.runs,
        options.out,
        games=options.games,
        seed=options.seed,
        protocol=options.protocol,
        deterministic=options.deterministic,
        overlay=options.video_overlay,
        max_steps=options.max_steps,
        device=options.device,
    )
    for film in films:
        print(f"video: {film.path} ({film.frames:,} frames at {film.fps} per second)")
        for name, score in film.returns.items():
            print(f"  {name}: return {score:g} in {film.lengths[name]:,} steps")
    facts = {**dataclasses.asdict(options), "out": str(options.out)}
    track_films(films, facts, options.out, options.track, options.project)


if __name__ == "__main__":
    run_script(main)
