"""One episode as the pictures of a film, with or without more drawn beside them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import gymnasium as gym
import numpy as np

from envs.atari_single import check_game, make_atari_env, make_game
from envs.checks import ObservationColour, check_observation
from envs.config import EnvConfig
from envs.films.lens import Lens, observation_lens, render_lens
from envs.pictures import to_rgb
from envs.pixels import PixelVecEnv
from envs.protocol import AtariProtocol, get_protocol
from envs.registry import is_atari_id

# The console drew one picture for each field of NTSC television; ale-py's metadata say 30.
ATARI_FPS = 60

Act = Callable[[np.ndarray], np.ndarray]
"""Observations uint8 (1, frame_stack * C, obs_size, obs_size) -> actions (1,)."""


class Overlay(Protocol):
    """Draws the pictures of a film from those of the game, such as with curves beside them."""

    def begin(self, action_names: Sequence[str]) -> None:
        """An episode begins, perhaps once more; ``action_names`` are in the order of actions."""

    def draw(self, picture: np.ndarray, score: float) -> np.ndarray:
        """A picture of the game, uint8 (height, width, 3), as one of the film, always one size.

        ``score`` is the unclipped return so far.
        """


@dataclass(frozen=True)
class GameView:
    """How an agent observes a game, and which episode is played.

    Attributes:
        protocol: Atari conventions.
        obs: "grey" or "rgb".
        obs_size: height and width of observed frames in pixels.
        frame_stack: frames in an observation.
        seed: of the episode.
        max_episode_steps: agent steps after which it ends, since some policies play for ever.
    """

    protocol: str | AtariProtocol = "classic"
    obs: ObservationColour = "grey"
    obs_size: int = 84
    frame_stack: int = 4
    seed: int = 0
    max_episode_steps: int = 27_000


class FilmedGame:
    """One episode; iterating plays it and yields its pictures, uint8 (height, width, 3).

    For an Atari game there is one for every frame of the emulator, including the opening's.

    Attributes:
        fps: pictures per second at true speed.
        episode: after the last picture, return ``r``, length ``l`` in agent steps, ``truncated``.
    """

    def __init__(
        self,
        env: str | EnvConfig,
        act: Act,
        view: GameView,
        *,
        rendered: bool = True,
        overlay: Overlay | None = None,
    ) -> None:
        """Makes a new environment.

        Args:
            env: any of ``make_vec_env``.
            act: chooses actions.
            view: how the agent observes, and which episode.
            rendered: whether pictures are rendered ones, or observations; an Atari game renders
                always.
            overlay: draws the pictures.

        Raises:
            UserError: a value is not valid.
            CannotRender: the environment does not render; iterating may raise it, too.
        """
        check_observation(view.obs, view.obs_size, view.frame_stack)
        config = EnvConfig.of(env)
        self._act, self._overlay = act, overlay
        played, lens = _environment(config, view, rendered)
        self._lens, self.fps = lens, lens.fps
        self._pictures: list[np.ndarray] = []
        self._score = 0.0
        self.episode: dict[str, Any] = {}
        self._venv = PixelVecEnv(
            [lambda: played],
            obs=view.obs,
            obs_size=view.obs_size,
            frame_stack=view.frame_stack,
            seed=view.seed,
            max_episode_steps=view.max_episode_steps,
        )

    def __iter__(self) -> Iterator[np.ndarray]:
        venv, total = self._venv, 0.0
        if self._overlay:
            self._overlay.begin(_action_names(self._lens, venv.action_space))
        self._lens.begin(self._pictures.append)
        observations = venv.reset()
        yield from self._shown(total)
        while not self.episode:
            venv.step_async(self._act(observations))
            observations, rewards, dones, infos = venv.step_wait()
            total += float(rewards[0])
            if dones[0]:
                truncated = infos[0]["TimeLimit.truncated"]
                self.episode = {**infos[0]["episode"], "truncated": truncated}
            yield from self._shown(total)

    def close(self) -> None:
        """Closes the environment."""
        self._venv.close()

    def _shown(self, score: float) -> Iterator[np.ndarray]:
        """The pictures of a step, the last of which has the ``score`` after it."""
        pictures, before = self._pictures.copy(), self._score
        self._pictures.clear()
        self._score = score
        for number, picture in enumerate(pictures, 1):
            shown = score if number == len(pictures) else before
            yield self._overlay.draw(picture, shown) if self._overlay else picture


def _environment(config: EnvConfig, view: GameView, rendered: bool) -> tuple[gym.Env, Lens]:
    """The environment to play, and the lens in it."""
    if is_atari_id(config.env_id):
        played = get_protocol(view.protocol)
        check_game(config, played)
        game = make_game(config, played, "rgb_array")
        lens = Lens(game, ATARI_FPS, lambda observation: to_rgb(np.asarray(game.render())))
        return make_atari_env(config, played, view.obs, view.obs_size, lens), lens
    lens = render_lens(config) if rendered else observation_lens(config)
    return lens, lens


def _action_names(env: gym.Env, space: Any) -> list[str]:
    """What the environment calls its actions, or else ``action 0`` and so on."""
    numbers = [f"action {number}" for number in range(int(space.n))]
    # A method of the user's may raise anything.
    with contextlib.suppress(Exception):
        names = [str(name) for name in env.get_wrapper_attr("get_action_meanings")()]
        if len(names) == len(numbers):
            return names
    return numbers
