"""A stand-in for an environment that stacks frames, and a plain record of its observations."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from gymnasium import spaces

from agents.storage.codecs import PixelCodec
from envs.stacking import FrameStacking

Event = Literal["goes on", "life lost", "ended", "cut off"]
EVENTS: tuple[Event, ...] = ("goes on", "life lost", "ended", "cut off")


class Step(NamedTuple):
    """One step of all environments, as a VecEnv returns it."""

    actions: np.ndarray
    rewards: np.ndarray
    dones: np.ndarray
    infos: list[dict[str, Any]]
    observations: np.ndarray


class Seen(NamedTuple):
    """One transition of one environment, as it was seen."""

    observation: np.ndarray
    action: int
    reward: float
    next_observation: np.ndarray
    terminated: bool
    ended: bool


@dataclass
class Stream:
    """Environments of random frames, whose stacks are built by concatenating lists of frames."""

    n_envs: int
    stacking: FrameStacking
    size: tuple[int, int] = (3, 2)
    seed: int = 0
    seen: list[list[Seen]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        channels = self.stacking.depth * self.stacking.channels
        self.observation_space = spaces.Box(0, 255, (channels, *self.size), np.uint8)
        self.action_space = spaces.Discrete(5)
        self.seen = [[] for _ in range(self.n_envs)]

    @property
    def codec(self) -> PixelCodec:
        return PixelCodec(self.stacking, self.observation_space.shape)

    def reset(self) -> np.ndarray:
        self.stacks = [self._fresh() for _ in range(self.n_envs)]
        return self.join()

    def join(self) -> np.ndarray:
        """The present observations; transitions so far count as ended."""
        for transitions in self.seen:
            if transitions:
                transitions[-1] = transitions[-1]._replace(ended=True)
        return self.observations()

    def step(self, events: list[Event]) -> Step:
        before = self.observations()
        actions = self.rng.integers(5, size=self.n_envs)
        rewards = self.rng.normal(size=self.n_envs).astype(np.float32)
        infos: list[dict[str, Any]] = [{} for _ in events]
        for env, event in enumerate(events):
            self.stacks[env] = [*self.stacks[env][1:], self._frame()]
            after = np.concatenate(self.stacks[env])
            ended, cut_off = event != "goes on", event == "cut off"
            seen = (before[env], actions[env], rewards[env], after, ended and not cut_off, ended)
            self.seen[env].append(Seen(*seen))
            if not ended:
                continue
            infos[env] = {"terminal_observation": after, "TimeLimit.truncated": cut_off}
            if event == "life lost":
                infos[env]["life_loss"] = True
            else:
                self.stacks[env] = self._fresh()
        dones = np.array([event != "goes on" for event in events])
        return Step(actions, rewards, dones, infos, self.observations())

    def _frame(self) -> np.ndarray:
        return self.rng.integers(1, 256, (self.stacking.channels, *self.size), dtype=np.uint8)

    def _fresh(self) -> list[np.ndarray]:
        first = self._frame()
        older = np.zeros_like(first) if self.stacking.padding == "zeros" else first
        return [older] * (self.stacking.depth - 1) + [first]

    def observations(self) -> np.ndarray:
        return np.stack([np.concatenate(stack) for stack in self.stacks])
