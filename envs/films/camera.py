"""Films whole episodes in colour and at true speed."""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envs.checks import ObservationColour
from envs.config import EnvConfig
from envs.errors import EnvironmentFailure
from envs.films.game import Act, FilmedGame, GameView, Overlay
from envs.films.lens import CannotRender, close, render_lens
from envs.films.mp4 import Mp4Writer
from envs.protocol import AtariProtocol
from envs.registry import is_atari_id
from envs.stepping.checked import CheckedEnv

# Approximate height of films in pixels: twice an Atari screen.
FILM_HEIGHT = 420


@dataclass(frozen=True)
class FilmResult:
    """A film and its episode.

    Attributes:
        path: the MP4.
        episode_return: unclipped return of the episode, over all lives.
        length: agent steps.
        frames: pictures in the film.
        fps: pictures per second.
        truncated: whether a step limit ended the episode.
        caption: one line with return and length.
        no_render: why the film shows observations; None if it shows rendered pictures.
    """

    path: Path
    episode_return: float
    length: int
    frames: int
    fps: int
    truncated: bool
    caption: str
    no_render: str | None = None


def film_episode(
    env: str | EnvConfig,
    act: Act,
    path: str | os.PathLike[str],
    *,
    protocol: str | AtariProtocol = "classic",
    obs: ObservationColour = "grey",
    obs_size: int = 84,
    frame_stack: int = 4,
    seed: int = 0,
    max_episode_steps: int = 27_000,
    caption_prefix: str = "",
    overlay: Overlay | None = None,
) -> FilmResult:
    """Plays and films one episode; for an Atari game, every picture of the emulator.

    If an environment cannot render, the film shows its observations. If rendering fails during the
    episode, the film starts again with another episode.

    The episode is played as in evaluation (a lost life does not end it) in a new environment. The
    film is written under another name, and renamed when it is complete; missing directories are
    created and an old film is replaced.

    ``act`` maps observations uint8 (1, frame_stack * C, obs_size, obs_size) to actions (1,). The
    film ends after ``max_episode_steps`` agent steps, since some policies play for ever. ``env``
    is any of ``make_vec_env``, and the other arguments are those of ``AtariVecEnv``.
    ``caption_prefix`` comes before the caption. ``overlay`` draws each picture of the film from one
    of the game.

    Raises:
        UserError: a value is not valid, or the film cannot be written.
    """
    view = GameView(protocol, obs, obs_size, frame_stack, seed, max_episode_steps)
    config = EnvConfig.of(env)
    no_render: str | None = None
    try:
        film, episode = _film(config, act, view, Path(path), overlay)
    except (CannotRender, EnvironmentFailure) as error:
        if is_atari_id(config.env_id):
            raise
        # Rendering alone may fail, for example without a display.
        no_render = str(error)
        film, episode = _film(config, act, view, Path(path), overlay, rendered=False)
    caption = f"{config.env_id}: return {episode['r']:g} in {episode['l']:,} steps"
    if episode["truncated"]:
        caption += " (stopped by the step limit)"
    return FilmResult(
        path=film.path,
        episode_return=episode["r"],
        length=episode["l"],
        frames=film.pictures,
        fps=film.fps,
        truncated=episode["truncated"],
        caption=f"{caption_prefix} | {caption}" if caption_prefix else caption,
        no_render=no_render,
    )


def why_not_rendered(env: str | EnvConfig, seed: int = 0) -> str | None:
    """Why films of an environment show its observations; None if they show rendered pictures.

    The function renders one picture.

    Raises:
        UserError: there is no such environment.
    """
    config = EnvConfig.of(env)
    if is_atari_id(config.env_id):
        return None
    try:
        lens = render_lens(config)
    except CannotRender as error:
        return str(error)
    try:
        CheckedEnv(lens, config.env_id).reset(seed)
    except (CannotRender, EnvironmentFailure) as error:
        return str(error)
    finally:
        close(lens)
    return None


def _film(
    config: EnvConfig,
    act: Act,
    view: GameView,
    path: Path,
    overlay: Overlay | None,
    rendered: bool = True,
) -> tuple[Mp4Writer, dict[str, Any]]:
    """The film and its episode: return ``r``, length ``l``, and ``truncated``."""
    game = FilmedGame(config, act, view, rendered=rendered, overlay=overlay)
    with closing(game), Mp4Writer(path, fps=game.fps, height=FILM_HEIGHT) as film:
        for picture in game:
            film.add(picture)
    return film, game.episode
