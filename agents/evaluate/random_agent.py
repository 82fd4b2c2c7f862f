"""Returns and lengths of games played at random, under the agents' evaluation protocol."""

from __future__ import annotations

from contextlib import closing

import numpy as np

from agents.config import TrainConfig
from agents.evaluate.evaluation import game_environments, make_play_env, play_games, play_protocol
from agents.seeding import derive_seed
from envs.errors import UserError


def random_returns(config: TrainConfig, episodes: int) -> list[float]:
    """Unclipped returns of whole games whose actions are drawn uniformly.

    Args:
        config: the configuration whose agents are evaluated in these games.
        episodes: the number of games.

    Raises:
        UserError: no episodes.
    """
    if episodes < 1:
        raise UserError(f"a random agent's worth needs at least 1 game, not {episodes}")
    seed = derive_seed(config.seed, "evaluate")
    coins = np.random.default_rng(seed)
    environments = game_environments(episodes)
    with closing(make_play_env(config, environments, play_protocol(config), seed)) as venv:
        actions = int(venv.action_space.n)  # type: ignore[attr-defined]
        games = play_games(
            lambda observations: coins.integers(actions, size=len(observations)),
            venv,
            episodes // environments,
        )
    return [float(game["r"]) for game in games]


def random_length(config: TrainConfig, most: int, games: int = 4) -> float:
    """Mean length in agent steps of whole games whose actions are drawn uniformly.

    Args:
        config: the configuration whose agents are evaluated in this game.
        most: agent steps after which a game counts as ended.
        games: the number of games, all played at once.
    """
    seed = derive_seed(config.seed, "evaluate")
    coins = np.random.default_rng(seed)
    lengths: dict[int, int] = {}
    with closing(make_play_env(config, games, play_protocol(config), seed)) as venv:
        actions = int(venv.action_space.n)  # type: ignore[attr-defined]
        venv.reset()
        for _ in range(most):
            _, _, dones, infos = venv.step(coins.integers(actions, size=games))
            for i in np.flatnonzero(dones):
                if "episode" in infos[i]:
                    lengths.setdefault(int(i), int(infos[i]["episode"]["l"]))
            if len(lengths) == games:
                break
    return (sum(lengths.values()) + most * (games - len(lengths))) / games
