"""The evaluation protocol, defined once: whole games, their true returns, seeds of their own."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from agents.config import TrainConfig
from agents.evaluate.overlay import DecisionOverlay
from agents.seeding import Purpose, derive_seed
from envs.atari import AtariVecEnv
from envs.atari_single import SingleAtariVecEnv
from envs.errors import UserError
from envs.films.camera import FilmResult, film_episode
from envs.make import make_vec_env
from envs.protocol import AtariProtocol, get_protocol

DQN_EPSILON = 0.001
"""Share of random actions in DQN's evaluations (van Hasselt et al. 2016 and Dopamine's)."""

MAX_EVAL_ENVS = 32


@dataclass(frozen=True)
class Evaluation:
    """Unclipped returns of whole games."""

    returns: list[float]  # one for each game, in the order of environments and then of games
    lengths: list[int]  # agent steps of each game
    truncated: int  # how many games the step limit ended
    protocol: dict[str, Any]  # all that the figures depend on beside the agent, as JSON values

    @property
    def mean_return(self) -> float:
        return float(np.mean(self.returns))

    @property
    def std(self) -> float:
        """Standard deviation of the returns (of the sample: divided by games - 1)."""
        return float(np.std(self.returns, ddof=1)) if len(self.returns) > 1 else 0.0

    def to_json(self) -> dict[str, Any]:
        """The evaluation as written to ``summary.json``."""
        return {
            "mean_return": self.mean_return,
            "std": self.std,
            "episodes": len(self.returns),
            "returns": self.returns,
            "lengths": self.lengths,
            "truncated": self.truncated,
            "protocol": self.protocol,
        }


class EvaluationPolicy:
    """An agent's choice of actions in evaluations and films.

    PPO samples from its policy and DQN takes a random action with probability :data:`DQN_EPSILON`,
    unless ``deterministic``: then the most probable, or most valuable, action is taken. The policy
    has random generators of its own, from ``seed``, independent of training's. ``on_step`` is
    called before every choice of actions; an exception from it ends the games.
    """

    def __init__(
        self,
        model: BaseAlgorithm,
        seed: int,
        deterministic: bool = False,
        on_step: Callable[[], None] | None = None,
    ) -> None:
        self._model, self._on_step, self._deterministic = model, on_step, deterministic
        explores = hasattr(model, "exploration_rate")
        self.epsilon = DQN_EPSILON if explores and not deterministic else 0.0
        self._coins = np.random.default_rng(seed)
        self._torch_state = torch.Generator(model.device).manual_seed(seed).get_state()

    def __call__(self, observations: np.ndarray) -> np.ndarray:
        """Actions int64 (batch,) for uint8 observations (batch, channels, height, width)."""
        if self._on_step is not None:
            self._on_step()
        greedy = self._deterministic or self.epsilon > 0
        with self._own_randomness():
            actions, _ = self._model.predict(observations, deterministic=greedy)
        if self.epsilon:
            space = self._model.action_space
            exploring = self._coins.random(len(actions)) < self.epsilon
            drawn = self._coins.integers(space.n, size=len(actions))  # type: ignore[attr-defined]
            actions = np.where(exploring, drawn, actions)
        return actions

    @contextmanager
    def _own_randomness(self) -> Iterator[None]:
        devices = [self._model.device] if self._model.device.type == "cuda" else []
        random: Any = torch.cuda if devices else torch
        with torch.random.fork_rng(devices):
            random.set_rng_state(self._torch_state, *devices)
            yield
            self._torch_state = random.get_rng_state(*devices)


def evaluate_agent(
    model: BaseAlgorithm,
    config: TrainConfig,
    *,
    episodes: int | None = None,
    protocol: str | None = None,
    seed: int | None = None,
    purpose: Purpose = "evaluate",
    step: int = 0,
    deterministic: bool = False,
    max_steps: int = 0,
    on_game: Callable[[float], None] | None = None,
    on_step: Callable[[], None] | None = None,
) -> Evaluation:
    """Plays whole games and reports their true returns.

    Args:
        model: an agent.
        config: of the run that trained it; defines its observations.
        episodes: games, at least 1; by default the run's own number.
        protocol: by default the run's own; another keeps the actions that were learned.
        seed: by default the run's own; the games' seeds are derived from it, apart from training's.
        purpose: which of the seed's ranges the games come from.
        step: the agent step at which a run in progress is evaluated.
        deterministic: no sampling and no random actions.
        max_steps: agent steps after which a game ends with its points so far; 0 ends it by the
            protocol alone.
        on_game: called with each game's return when it ends.
        on_step: called before every step; an exception from it ends the evaluation.
    """
    episodes = config.eval_episodes if episodes is None else episodes
    if episodes < 1:
        raise UserError(f"an evaluation needs at least 1 episode, not {episodes}")
    seed = config.seed if seed is None else seed
    conventions = play_protocol(config, protocol)
    if max_steps:
        most = min(max_steps, conventions.max_episode_steps)
        conventions = dataclasses.replace(conventions, max_episode_steps=most)
    game_seed = derive_seed(seed, purpose, step)
    policy = EvaluationPolicy(model, game_seed, deterministic, on_step)
    environments = game_environments(episodes)
    made = make_play_env(config, environments, conventions, game_seed)
    with closing(made) as venv, inference(model):
        games = play_games(policy, venv, episodes // environments, on_game)
    facts = dataclasses.asdict(conventions)
    for training_only in ("terminal_on_life_loss", "clip_rewards"):
        del facts[training_only]
    if not isinstance(venv, AtariVecEnv | SingleAtariVecEnv):
        facts = {name: facts[name] for name in ("name", "max_episode_steps")}
    return Evaluation(
        returns=[g["r"] for g in games],
        lengths=[g["l"] for g in games],
        truncated=sum(g["truncated"] for g in games),
        protocol={
            **facts,
            # What makes another game of the one that the id names, if anything does.
            **{n: v for n in ("env_kwargs", "env_wrapper") if (v := getattr(config, n))},
            "environments": environments,
            "seed": seed,
            "deterministic": deterministic,
            "epsilon": policy.epsilon,
        },
    )


def game_environments(episodes: int) -> int:
    """How many environments share ``episodes`` games evenly: the most, up to 32.

    Every environment plays the same number. To stop at the first N games that end would count
    short games more often than long ones. A prime number above 32 is played in one environment.
    """
    return max(n for n in range(1, min(episodes, MAX_EVAL_ENVS) + 1) if episodes % n == 0)


def play_games(
    policy: Callable[[np.ndarray], np.ndarray],
    venv: VecEnv,
    games_each: int,
    on_game: Callable[[float], None] | None = None,
    most: int | None = None,
) -> list[dict[str, Any]]:
    """Plays ``games_each`` whole games in every environment, for at most ``most`` steps.

    Returns:
        ``r`` (return), ``l`` (length) and ``truncated`` of each, by environment and then by game.
    """
    games: list[list[dict[str, Any]]] = [[] for _ in range(venv.num_envs)]
    observations = venv.reset()
    for step in itertools.count():
        if step == most or all(len(played) == games_each for played in games):
            break
        assert isinstance(observations, np.ndarray)
        observations, _, dones, infos = venv.step(policy(observations))
        for i in np.flatnonzero(dones):
            if "episode" in infos[i] and len(games[i]) < games_each:
                episode = infos[i]["episode"]
                game = {
                    "r": float(episode["r"]),
                    "l": int(episode["l"]),
                    "truncated": bool(infos[i].get("TimeLimit.truncated", False)),
                }
                games[i].append(game)
                if on_game is not None:
                    on_game(game["r"])
    return [game for played in games for game in played]


def film_agent(
    model: BaseAlgorithm,
    config: TrainConfig,
    path: Any,
    *,
    protocol: str | None = None,
    seed: int | None = None,
    step: int = 0,
    deterministic: bool = False,
    overlay: bool = False,
    on_step: Callable[[], None] | None = None,
) -> FilmResult:
    """Films one whole game, as :func:`evaluate_agent` would play it, to an MP4 at ``path``.

    With ``overlay`` the film shows beside the game what the agent sees and how it decides; the game
    is the same. ``on_step`` is called before every step; an exception from it ends the film and
    leaves no file.
    """
    game_seed = derive_seed(config.seed if seed is None else seed, "film", step)
    conventions = play_protocol(config, protocol)
    policy = EvaluationPolicy(model, game_seed, deterministic, on_step)
    game = config.env.split("/")[-1].split(":")[-1]
    title = f"{config.algo.upper()} on {game} after {step:,} steps"
    drawn = DecisionOverlay(model, config.frame_stack, title, policy) if overlay else None
    with inference(model):
        return film_episode(
            config.environment,
            drawn or policy,
            path,
            protocol=conventions,
            obs=config.obs,
            obs_size=config.obs_size,
            frame_stack=config.frame_stack,
            seed=game_seed,
            max_episode_steps=conventions.max_episode_steps,
            caption_prefix=f"step {step:,}",
            overlay=drawn,
        )


@contextmanager
def inference(model: BaseAlgorithm) -> Iterator[None]:
    """Puts an agent's policy into inference mode inside the block, and restores its mode."""
    # Only our agents have updates beside their rollouts.
    if (finish_update := getattr(model, "finish_update", None)) is not None:
        finish_update()
    was_training = model.policy.training
    model.policy.set_training_mode(False)
    try:
        yield
    finally:
        model.policy.set_training_mode(was_training)


def play_protocol(config: TrainConfig, protocol: str | None = None) -> AtariProtocol:
    """The protocol of an evaluation, with the actions that the run's agent learned.

    By default that is the run's own. Another sets starts, FIRE and sticky actions, but an agent
    keeps the actions that it was trained with.
    """
    own = get_protocol(config.protocol)
    named = get_protocol(protocol or config.protocol)
    return dataclasses.replace(named, full_action_space=own.full_action_space)


def make_play_env(config: TrainConfig, num_envs: int, protocol: AtariProtocol, seed: int) -> VecEnv:
    """Environments for whole games, with the observations that the run's agent learned from."""
    return make_vec_env(
        config.environment,
        num_envs,
        protocol=protocol,
        training=False,
        obs=config.obs,
        obs_size=config.obs_size,
        frame_stack=config.frame_stack,
        seed=seed,
        num_threads=min(config.num_threads, num_envs),
        # Not only in Atari: some policies play any game for ever.
        max_episode_steps=protocol.max_episode_steps,
    )
