"""Random play of Atari games for tests."""

import numpy as np

from envs import AtariVecEnv


def random_actions(env: AtariVecEnv, steps: int, seed: int = 0) -> np.ndarray:
    """Actions (steps, num_envs)."""
    return np.random.default_rng(seed).integers(env.action_space.n, size=(steps, env.num_envs))


def play(env: AtariVecEnv, actions: np.ndarray) -> list:
    env.reset()
    return [env.step(action) for action in actions]
