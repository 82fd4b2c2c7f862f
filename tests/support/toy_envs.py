"""Tiny pixel worlds whose best return is known, as vectors of environments."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv

from envs.stacking import FrameStacking

SIZE = 36


class Outcome(NamedTuple):
    """The result of an action; ``cut_off`` ends an episode that could have continued."""

    state: Any
    reward: float
    ended: bool = False
    cut_off: bool = False


class World(Protocol):
    """States, and the image of each."""

    n_actions: int
    best_return: float

    def start(self, rng: np.random.Generator) -> Any:
        """The state an episode starts in."""

    def show(self, state: Any) -> int:
        """Which column of the image is lit in a state; -1 for none."""

    def act(self, state: Any, action: int, rng: np.random.Generator) -> Outcome:
        """The result of an action."""


class Columns:
    """One of four columns is lit; its action earns 1. Every action of an episode counts alike.

    Args:
        delay: 1 asks for the column that was lit one step before, seen only in the older frame.
    """

    n_actions = 4
    length = 8

    def __init__(self, delay: int = 0) -> None:
        self.delay = delay
        self.best_return = float(self.length - delay)

    def start(self, rng: np.random.Generator) -> Any:
        return (0, -1, int(rng.integers(4)))

    def show(self, state: Any) -> int:
        return state[2]

    def act(self, state: Any, action: int, rng: np.random.Generator) -> Outcome:
        step, older, newer = state
        earned = float(action == (older if self.delay else newer))
        return Outcome((step + 1, newer, int(rng.integers(4))), earned, step + 1 == self.length)


class Corridor:
    """Four cells. Left from the first earns 0.2 at once, right from the last earns 1: both end it.

    Only who carries the 1 back over three steps that earn nothing walks to the right.
    """

    n_actions = 2
    best_return = 1.0
    cells = 4

    def start(self, rng: np.random.Generator) -> Any:
        return 0

    def show(self, state: Any) -> int:
        return state

    def act(self, state: Any, action: int, rng: np.random.Generator) -> Outcome:
        if action == 0:
            return Outcome(max(state - 1, 0), 0.2 * (state == 0), ended=state == 0)
        last = state == self.cells - 1
        return Outcome(state if last else state + 1, float(last), ended=last)


class Clock:
    """Every step earns 1 and every third cuts the episode off.

    Whoever bootstraps at the cut values every state at 1 / (1 - gamma).
    """

    n_actions = 2
    best_return = 3.0

    def start(self, rng: np.random.Generator) -> Any:
        return 0

    def show(self, state: Any) -> int:
        return 0

    def act(self, state: Any, action: int, rng: np.random.Generator) -> Outcome:
        return Outcome(state + 1, 1.0, cut_off=state == 2)


class WorldVecEnv(VecEnv):
    """Worlds side by side, seen as uint8 (depth, 36, 36), with the infos of our environments."""

    render_mode = None

    def __init__(self, world: World, num_envs: int = 8, depth: int = 1, seed: int = 0) -> None:
        self.world = world
        self.frame_stacking = FrameStacking(depth, 1)
        space = spaces.Box(0, 255, (depth, SIZE, SIZE), np.uint8)
        super().__init__(num_envs, space, spaces.Discrete(world.n_actions))
        self.seed(seed)

    def seed(self, seed: int | None = None) -> list[int | None]:
        self.rng = np.random.default_rng(seed)
        return [seed] * self.num_envs

    def reset(self) -> np.ndarray:
        self.observations = np.zeros(
            (self.num_envs, *self.observation_space.shape),  # type: ignore[misc]
            dtype=np.uint8,
        )
        self.states = [None] * self.num_envs
        self.returns, self.lengths = np.zeros(self.num_envs), np.zeros(self.num_envs)
        for env in range(self.num_envs):
            self._start(env)
        return self.observations.copy()

    def step_async(self, actions: np.ndarray) -> None:
        self.actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        rewards = np.zeros(self.num_envs, dtype=np.float32)
        dones = np.zeros(self.num_envs, dtype=bool)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for env, action in enumerate(self.actions):
            outcome = self.world.act(self.states[env], int(action), self.rng)
            self.states[env], rewards[env] = outcome.state, outcome.reward
            self.returns[env] += outcome.reward
            self.lengths[env] += 1
            self._see(env)
            dones[env] = outcome.ended or outcome.cut_off
            if dones[env]:
                infos[env] = {
                    "terminal_observation": self.observations[env].copy(),
                    "TimeLimit.truncated": outcome.cut_off,
                    "episode": {"r": self.returns[env], "l": int(self.lengths[env]), "t": 0.0},
                }
                self._start(env)
        return self.observations.copy(), rewards, dones, infos

    def _start(self, env: int) -> None:
        self.states[env] = self.world.start(self.rng)
        self.observations[env] = 0
        self.returns[env] = self.lengths[env] = 0
        self._see(env)

    def _see(self, env: int) -> None:
        observation = self.observations[env]
        observation[:-1] = observation[1:].copy()
        observation[-1] = 0
        lit = self.world.show(self.states[env])
        if lit >= 0:
            observation[-1, :, lit * SIZE // 4 : (lit + 1) * SIZE // 4] = 255

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise NotImplementedError

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> Any:
        raise NotImplementedError

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False for _ in self._get_indices(indices)]

    def close(self) -> None:
        pass


def mean_return(model: Any, world: World, depth: int = 1, episodes: int = 40) -> float:
    """Mean return of whole episodes acted greedily."""
    venv = WorldVecEnv(world, 8, depth, seed=1000)
    observations, returns = venv.reset(), []
    while len(returns) < episodes:
        actions, _ = model.predict(observations, deterministic=True)
        observations, _, dones, infos = venv.step(actions)
        returns += [infos[env]["episode"]["r"] for env in np.flatnonzero(dones)]
        # A corridor can be paced up and down for ever.
        if venv.lengths.max() > 100:
            return float("-inf")
    return float(np.mean(returns))
