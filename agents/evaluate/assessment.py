"""Evaluates and films the agent of a run on disk, finished or not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from agents.config import TrainConfig, read_config
from agents.evaluate.evaluation import Evaluation, evaluate_agent, film_agent
from agents.train.builder import load_agent
from agents.train.checkpoint import encoder_origin
from envs.errors import UserError
from envs.films.camera import FilmResult
from rlcnn.accelerate.devices import use_threads
from rlcnn.runs.compact import score_text
from rlcnn.runs.directory import RunDirectory
from rlcnn.runs.progress import ProgressDisplay, make_console, print_line, waiting
from rlcnn.weights.origin import Origin


@dataclass(frozen=True)
class Assessment:
    """The evaluation and films of an agent on disk."""

    run: Path  # the run directory
    step: int  # agent steps the agent had been trained for
    evaluation: Evaluation | None  # None where no games were asked for
    films: list[FilmResult]  # one for each video that could be made
    origin: Origin | None = None  # of its encoder's first weights; None if they were random

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON values; ``eval`` as in the run's ``summary.json``."""
        return {
            "run": str(self.run),
            "step": self.step,
            "encoder_origin": self.origin.to_json() if self.origin else None,
            "eval": self.evaluation.to_json() if self.evaluation else None,
            "videos": [
                {"path": str(film.path), "return": film.episode_return, "length": film.length}
                for film in self.films
            ],
        }


def assess_run(
    run_dir: Path,
    *,
    episodes: int | None = None,
    videos: int = 0,
    overlay: bool = False,
    protocol: str | None = None,
    deterministic: bool = False,
    seed: int | None = None,
    checkpoint: str | Path | None = None,
    device: str | None = None,
    console: Console | None = None,
) -> Assessment:
    """Evaluates a run's agent; by default as the run itself does.

    The run is neither locked nor changed, so it may be training meanwhile. With all defaults, a
    trained agent plays the games of the run's last evaluation, with the results of
    ``summary.json``; an agent still in training plays those of its step, with the results of that
    step's row in ``metrics.jsonl``, if there is one.

    Args:
        run_dir: the run.
        episodes: whole games; by default the run's own number. 0 only films.
        videos: whole games to film, into the run's ``videos/``.
        overlay: whether the films show beside the game what the agent sees and how it decides.
        protocol: by default the run's own; another keeps the actions that were learned.
        deterministic: no sampling and no random actions.
        seed: by default the run's own; games and the agent's random choices follow from it.
        checkpoint: its directory or its step; by default the newest that is whole.
        device: by default the run's own.
        console: shows progress; by default standard error.

    Raises:
        UserError: the run or checkpoint is missing or damaged, a value is not valid, or a film,
            where nothing else was asked for, cannot be made.
    """
    for name, count in (("episodes", episodes), ("video", videos)):
        if count is not None and count < 0:
            raise UserError(f"--{name} {count} must be at least 0")
    if overlay and videos == 0:
        raise UserError("--video-overlay draws into films: give --video 1 too")
    if episodes == 0 and videos == 0:
        raise UserError("--episodes 0 without --video leaves nothing to do: give --video 1")
    run = RunDirectory.open(run_dir)
    config = read_config(run)
    if seed is not None:
        config = replace(config, seed=seed)
        config.validate()
    if episodes is None:
        episodes = config.eval_episodes or TrainConfig.eval_episodes
    console = console or make_console()
    with use_threads(config.num_threads):
        print_line(console, f"loading the agent of {run_dir}")
        with waiting(console, "loading the agent"):
            model = load_agent(run_dir, checkpoint=checkpoint, device=device or config.device)
        step = model.num_timesteps
        evaluation = None
        if episodes:
            # Until an extended run reaches its new end, its summary is that of the former end.
            trained = step >= config.total_steps or step == (run.summary() or {}).get("steps")
            games = f"{episodes} game{'s' * (episodes != 1)}"
            print_line(console, f"evaluating the agent of step {step:,} over {games}")
            with _shown_games(console, episodes) as on_game:
                evaluation = evaluate_agent(
                    model,
                    config,
                    episodes=episodes,
                    protocol=protocol,
                    purpose="evaluate" if trained else "evaluate_during_training",
                    step=0 if trained else step,
                    deterministic=deterministic,
                    on_game=on_game,
                )
        ways = "-deterministic" * deterministic + "-overlay" * overlay
        name = f"{step:012d}-{protocol or config.protocol}{ways}-seed{config.seed}"

        def film(number: int) -> FilmResult:
            return film_agent(
                model,
                # The first is the game that the run filmed at this step.
                replace(config, seed=config.seed + number),
                run.videos_dir / f"{name}-{number}.mp4",
                protocol=protocol,
                step=step,
                deterministic=deterministic,
                overlay=overlay,
            )

        films = _films(film, videos, console, needed=evaluation is None)
    return Assessment(run.path, step, evaluation, films, encoder_origin(model))


def _films(
    film: Callable[[int], FilmResult], count: int, console: Console, needed: bool
) -> list[FilmResult]:
    """The films of games 0 to ``count`` - 1.

    Raises:
        UserError: the first cannot be made, and films are ``needed``.
    """
    films: list[FilmResult] = []
    for number in range(count):
        action = f"filming game {number + 1} of {count}"
        print_line(console, action)
        try:
            with waiting(console, action):
                made = film(number)
        except UserError as error:
            if needed and not films:
                raise
            # A film that fails must not lose the evaluation.
            console.print(f"not filmed: {error}")
            continue
        if made.no_render:
            console.print(f"the film shows what the agent observes: {made.no_render}")
        films.append(made)
    return films


@contextmanager
def _shown_games(console: Console, episodes: int) -> Iterator[Callable[[float], None]]:
    with ProgressDisplay(console) as display:
        task, returns = display.add("evaluating", episodes, status="return -"), list[float]()

        def on_game(game_return: float) -> None:
            returns.append(game_return)
            task.advance()
            task.status = f"return {score_text(float(np.mean(returns)))}"

        yield on_game
