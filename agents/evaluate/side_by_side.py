"""Films several runs' agents side by side, each playing the game of the same seed."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from agents.config import TrainConfig, read_config
from agents.evaluate.evaluation import EvaluationPolicy, inference, play_protocol
from agents.evaluate.overlay import DecisionOverlay
from agents.registry import Agent
from agents.seeding import derive_seed
from agents.train.builder import load_agent, untrained_agent
from envs.errors import UserError, first_line
from envs.films.game import FilmedGame, GameView
from envs.films.lens import CannotRender
from envs.films.mp4 import Mp4Writer
from rlcnn.accelerate.devices import use_threads
from rlcnn.config.fields import MAX_SEED
from rlcnn.runs.directory import RunDirectory
from rlcnn.runs.progress import make_console, print_line, waiting
from rlcnn.runs.tracking.service import start_or_warn
from rlcnn.runs.tracking.tracker import RunCard, TrackMode
from rlcnn.runs.tracking.weights_and_biases import start_wandb, wandb_identity
from rlcnn.visualize.film_panels import HEIGHT, captioned, faded, tiled

_GAME_HEIGHT = 420
_MOST_COLUMNS = 4

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FilmedRun:
    """A run's agent in films: its name there, its configuration and what it had learned."""

    name: str
    config: TrainConfig
    model: Agent

    @property
    def trained(self) -> str:
        """The algorithm and how long it learned."""
        return f"{self.config.algo.upper()} after {self.model.num_timesteps:,} steps"


@dataclass(frozen=True)
class SideBySide:
    """A film of one game by every run.

    Attributes:
        path: the MP4.
        seed: of the game.
        frames: pictures in the film, those of the longest game.
        fps: pictures per second.
        returns: unclipped return of each run's game, by the run's name.
        lengths: agent steps of each run's game, by the run's name.
    """

    path: Path
    seed: int
    frames: int
    fps: int
    returns: Mapping[str, float]
    lengths: Mapping[str, int]

    @property
    def caption(self) -> str:
        """The game's seed and the returns, in one line."""
        scores = ", ".join(f"{name} {score:g}" for name, score in self.returns.items())
        return f"seed {self.seed} | returns: {scores}"


def film_runs(
    runs: Sequence[str],
    directory: Path,
    *,
    games: int = 1,
    seed: int = 0,
    protocol: str | None = None,
    deterministic: bool = False,
    overlay: bool = False,
    max_steps: int | None = None,
    device: str | None = None,
    names: Sequence[str] = (),
    console: Console | None = None,
) -> list[SideBySide]:
    """Films whole games of several runs' agents, one film for each seed.

    Where a game ends before the others, its last picture stays, faded.

    Args:
        runs: directories of runs of one game, or ``DIRECTORY@STEP`` for one of its checkpoints;
            step 0 is the untrained agent.
        directory: where the films go.
        games: games, each in a film of its own, with seeds from ``seed`` on.
        seed: of the first game and of the agents' random choices.
        protocol: Atari conventions; by default the first run's own. Actions stay those learned.
        deterministic: no sampling and no random actions.
        overlay: whether to show what each agent sees and how it decides.
        max_steps: agent steps after which a game ends; by default the protocol's.
        device: by default each run's own.
        names: of the runs in the film, by default those of their directories, or ``runs`` if two
            directories have one name.
        console: shows progress; by default standard error.

    Raises:
        UserError: a run is missing or of another game, a value is not valid, or a film cannot be
            written.
    """
    if len(runs) < 2:
        raise UserError(
            "side by side needs at least two runs: scripts/evaluate_agent.py RUN --video 1 films"
            " one"
        )
    for place, run in enumerate(runs):
        if run in runs[:place]:
            raise UserError(f'run "{run}" is given twice: give each once')
    if seed + games - 1 > MAX_SEED:
        raise UserError(f"--seed {seed} with --games {games} must end at most at {MAX_SEED}")
    console = console or make_console()
    configs = [read_config(RunDirectory.open(Path(_split(run)[0]))) for run in runs]
    for run, config in zip(runs, configs, strict=True):
        _check_game(run, config, runs[0], configs[0])
    protocol = protocol or configs[0].protocol
    with use_threads(max(config.num_threads for config in configs)):
        filmed = []
        for run, name, config in zip(runs, names or _short_names(runs), configs, strict=True):
            path, step = _split(run)
            with waiting(console, f"loading the agent of {run}"):
                model = _load(path, step, device or config.device)
            filmed.append(FilmedRun(name, config, model))
        films = []
        for number in range(games):
            name = configs[0].env.split("/")[-1].split(":")[-1]
            ways = "-deterministic" * deterministic + "-overlay" * overlay
            path_of_film = directory / f"{name}{ways}-seed{seed + number}.mp4"
            action = f"filming game {number + 1} of {games} by {len(runs)} agents"
            print_line(console, action)
            with waiting(console, action):
                options = (seed + number, protocol, deterministic, overlay, max_steps)
                films.append(_film(filmed, path_of_film, *options))
    return films


def track_films(
    films: Sequence[SideBySide],
    options: Mapping[str, Any],
    directory: Path,
    mode: TrackMode,
    project: str,
) -> None:
    """Logs films and returns to Weights & Biases, as a run whose files are in ``directory``.

    A failure is one line of warning.
    """
    if mode == "disabled":
        return
    identity = wandb_identity(directory)
    card = RunCard(options, "film").with_labels({"tags": ["film"]})
    name = f"films of {directory.resolve().name}"
    run = start_or_warn(
        mode,
        lambda attempt: start_wandb(
            directory, attempt, card, project=project, name=name, identity=identity["id"]
        ),
    )
    if run is None:
        return
    try:
        import wandb

        shown: dict[str, Any] = {}
        for film in films:
            shown[f"video/seed{film.seed}"] = wandb.Video(
                str(film.path), caption=film.caption, format="mp4"
            )
            shown |= {f"return/{n}/seed{film.seed}": score for n, score in film.returns.items()}
        # W&B needs a step that grows, also over later films in the same directory.
        run.log(shown, step=int(1000 * (time.time() - float(identity["began"]))), commit=True)
        run.finish()
    except Exception as error:
        _log.warning("Weights & Biases misses the films: %s", first_line(error))


def _short_names(runs: Sequence[str]) -> list[str]:
    """The last part of each path, with its "@STEP"; the whole paths if two would be the same."""
    names = [Path(run).name for run in runs]
    return names if len(set(names)) == len(names) and all(names) else list(runs)


def _split(run: str) -> tuple[str, str | None]:
    """The directory and the step of ``DIRECTORY@STEP``."""
    path, mark, step = run.rpartition("@")
    return (path, step) if mark and step.isdecimal() and not Path(run).is_dir() else (run, None)


def _load(path: str, step: str | None, device: str) -> Agent:
    if step is not None and int(step) == 0:
        return untrained_agent(path, device=device)
    return load_agent(path, checkpoint=step, device=device)


def _check_game(run: str, config: TrainConfig, first: str, expected: TrainConfig) -> None:
    # Workers step the same game.
    ours, theirs = (dataclasses.replace(each.environment, workers=0) for each in (config, expected))
    if ours == theirs:
        return
    if config.env != expected.env:
        raise UserError(
            f'run "{run}" plays "{config.env}", but "{first}" plays "{expected.env}": expected runs'
            " of one game"
        )
    raise UserError(
        f'run "{run}" plays "{config.env}" with other --env-kwargs, --env-wrapper or --obs-key than'
        f' "{first}": expected runs of one game'
    )


def _film(
    runs: Sequence[FilmedRun],
    path: Path,
    seed: int,
    protocol: str,
    deterministic: bool,
    overlay: bool,
    max_steps: int | None,
) -> SideBySide:
    game_seed = derive_seed(seed, "film")
    with ExitStack() as opened:
        games = []
        for run in runs:
            opened.enter_context(inference(run.model))
            policy = EvaluationPolicy(run.model, game_seed, deterministic)
            drawn: DecisionOverlay | _Caption = (
                DecisionOverlay(
                    run.model, run.config.frame_stack, f"{run.name}: {run.trained}", policy
                )
                if overlay
                else _Caption([run.name, run.trained], policy)
            )
            game = _open_game(run, drawn, game_seed, protocol, max_steps)
            games.append(opened.enter_context(closing(game)))
        columns = _columns(len(games), overlay)
        film = opened.enter_context(Mp4Writer(path, fps=games[0].fps, height=HEIGHT))
        for pictures in _together(games):
            film.add(tiled(pictures, columns))
    episodes = {run.name: game.episode for run, game in zip(runs, games, strict=True)}
    return SideBySide(
        path=path,
        seed=seed,
        frames=film.pictures,
        fps=film.fps,
        returns={name: episode["r"] for name, episode in episodes.items()},
        lengths={name: episode["l"] for name, episode in episodes.items()},
    )


def _open_game(
    run: FilmedRun, drawn: Any, seed: int, protocol: str, max_steps: int | None
) -> FilmedGame:
    conventions = play_protocol(run.config, protocol)
    view = GameView(
        protocol=conventions,
        obs=run.config.obs,
        obs_size=run.config.obs_size,
        frame_stack=run.config.frame_stack,
        seed=seed,
        max_episode_steps=max_steps or conventions.max_episode_steps,
    )
    try:
        return FilmedGame(run.config.environment, drawn, view, overlay=drawn)
    except CannotRender:
        return FilmedGame(run.config.environment, drawn, view, overlay=drawn, rendered=False)


class _Caption:
    """Writes lines about an agent, its score and its step above the game."""

    def __init__(self, lines: Sequence[str], policy: EvaluationPolicy) -> None:
        self._lines, self._policy, self._steps = lines, policy, 0

    def begin(self, action_names: Sequence[str]) -> None:
        self._steps = 0

    def __call__(self, observations: np.ndarray) -> np.ndarray:
        self._steps += 1
        return self._policy(observations)

    def draw(self, picture: np.ndarray, score: float) -> np.ndarray:
        lines = [*self._lines, f"score {score:g}    step {self._steps:,}"]
        return captioned(picture, lines, _GAME_HEIGHT)


def _together(games: Sequence[FilmedGame]) -> Iterator[list[np.ndarray]]:
    """The pictures of all games at each moment; of a game that is over the last one, faded."""
    streams = [iter(game) for game in games]
    shown: list[np.ndarray] = [next(stream) for stream in streams]
    over = [False] * len(games)
    while not all(over):
        yield shown
        for place, stream in enumerate(streams):
            if over[place]:
                continue
            picture = next(stream, None)
            over[place] = picture is None
            shown[place] = faded(shown[place]) if picture is None else picture


def _columns(games: int, overlay: bool) -> int:
    if overlay:
        # Each is wide: below one another up to three.
        return 1 if games <= 3 else 2
    rows = -(-games // _MOST_COLUMNS)
    return -(-games // rows)
