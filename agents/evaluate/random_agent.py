"""Returns and lengths of games played at random, under the agents' evaluation protocol."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import numpy as np

from agents.config import TrainConfig
from agents.evaluate.evaluation import game_environments, make_play_env, play_games, play_protocol
from agents.seeding import derive_seed
from envs.errors import UserError


def random_returns(config: TrainConfig, episodes: int) -> list[float]:
    """Unclipped returns of whole games whose actions are drawn uniformly.

    ``config`` is that whose agents are evaluated in these games. A UserError refuses no episodes.
    """
    if episodes < 1:
        raise UserError(f"a random agent's worth needs at least 1 game, not {episodes}")
    environments = game_environments(episodes)
    games = _play(config, environments, episodes // environments)
    return [game["r"] for game in games]


def random_length(config: TrainConfig, most: int, games: int = 4) -> float:
    """Mean length in agent steps of whole games whose actions are drawn uniformly.

    All are played at once; after ``most`` agent steps a game counts as ended.
    """
    lengths = [game["l"] for game in _play(config, games, 1, most)]
    return (sum(lengths) + most * (games - len(lengths))) / games


def _play(
    config: TrainConfig, environments: int, games_each: int, most: int | None = None
) -> list[dict[str, Any]]:
    seed = derive_seed(config.seed, "evaluate")
    coins = np.random.default_rng(seed)
    with closing(make_play_env(config, environments, play_protocol(config), seed)) as venv:
        actions = int(venv.action_space.n)  # type: ignore[attr-defined]
        return play_games(
            lambda observations: coins.integers(actions, size=len(observations)),
            venv,
            games_each,
            most=most,
        )
