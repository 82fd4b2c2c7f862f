"""What acting at random is worth, under the same protocol as agents are judged by."""

from __future__ import annotations

from contextlib import closing

import numpy as np

from agents.config import TrainConfig
from agents.evaluate.evaluation import game_environments, make_play_env, play_games, play_protocol
from agents.seeding import derive_seed
from envs.errors import UserError


def random_returns(config: TrainConfig, episodes: int) -> list[float]:
    """Unclipped returns of whole games, every action of which was drawn uniformly.

    Args:
        config: says which games, as agents trained by it are judged in them.
        episodes: how many games.

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
    """Agent steps that a whole game lasts when every action is drawn uniformly, on average.

    Args:
        config: says which game, as agents trained by it are judged in it.
        most: agent steps after which a game counts as if it had ended.
        games: how many are played, all at once.
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
