"""Options of labelled frames: how games are played, and which labels their frames get."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from annotated_types import Interval

from envs.checks import ObservationColour, check_observation
from envs.errors import UserError
from envs.protocol import ProtocolName
from rlcnn.config.fields import Fraction, FrameStack, ObsSize, check_options

LabelKind = Literal["ram", "action", "reward", "order", "game"]
RandomPlay = Literal["random", "sticky-random"]

Policy = Callable[[np.ndarray], np.ndarray]
"""Observations uint8 (games, frame_stack * C, obs_size, obs_size) -> actions (games,)."""

_BelowOne = Annotated[float, Interval(ge=0, lt=1)]


@dataclass(frozen=True)
class FrameOptions:
    """How games are played for their frames, and which labels the frames get."""

    train_frames: Annotated[int, Interval(ge=100)] = 100_000
    """Training observations of each game; all different, unless whole games are needed."""
    test_frames: Annotated[int, Interval(ge=100)] = 10_000
    """Held-out observations of each game, from other episodes; likewise."""
    play: RandomPlay = "sticky-random"
    """How games are played: random draws every action from the game's minimal set; sticky-random
    often repeats the last action, and so gets further."""
    repeat_probability: _BelowOne = 0.75
    """For sticky-random: probability at each step of repeating the last action."""
    random_share: Fraction = 0.0
    """For a game that one of --players plays: share of its frames that are played at random
    instead, in games of their own."""
    labels: tuple[LabelKind, ...] = ("ram", "action", "reward", "game")
    """Labels: ram, a task for each known state variable; action, the action between the two newest
    frames; reward, the sign of the reward of that step; game, which of several games it is; order,
    whether the frames are in their true order. With order, half of the observations have shuffled
    frames, and these keep no other label than game."""
    protocol: ProtocolName = "classic"
    """Rules of play, classic or sticky; a lost life does not end a game."""
    obs: ObservationColour = "grey"
    """Colours of the frames."""
    obs_size: ObsSize = 84
    """Height and width of the frames in pixels."""
    frame_stack: FrameStack = 4
    """Frames in one observation."""
    max_episode_steps: Annotated[int, Interval(ge=1)] = 4_500
    """Agent steps after which a game is stopped: 4,500 are five minutes of play."""
    max_classes: Annotated[int, Interval(ge=2)] = 32
    """Greatest number of classes of a state variable; a variable with more values is cut into so
    many bins."""
    min_entropy: _BelowOne = 0.1
    """Tasks whose training labels have a lower normalised entropy are left out: 0.1 is the entropy
    of two classes with shares of 1.3% and 98.7%."""

    @property
    def frame_channels(self) -> int:
        """Channels of one frame."""
        return 3 if self.obs == "rgb" else 1

    def check(self) -> None:
        """Raises a :class:`UserError` if a value is not valid."""
        check_options(self, "frames")
        if not self.labels or len(set(self.labels)) < len(self.labels):
            given = " ".join(self.labels) or "of none"
            raise UserError(f"--frames.labels {given} must be at least one, and each once")
        check_observation(self.obs, self.obs_size, self.frame_stack)
        for label in ("action", "order"):
            if label in self.labels and self.frame_stack < 2:
                raise UserError(
                    f"--frames.labels {label} needs observations of at least 2 frames, and"
                    f" --frames.frame-stack is {self.frame_stack}"
                )


@dataclass(frozen=True)
class PolicyPlay:
    """A policy that plays a game instead of random play.

    Attributes:
        act: chooses actions of the protocol's action set. For the same split, a policy with a
            generator of its own must start with that generator in the same state.
        name: identifies the policy, such as a hash of its weights; without a name its games are
            not cached.
        exploration: probability that a step takes a random action instead.
    """

    act: Policy
    name: str = ""
    exploration: float = 0.05


LoadPolicies = Callable[[tuple[str, ...], FrameOptions, int], Mapping[str, PolicyPlay]]
"""Makes the players of games from run directories, how they play, and a seed."""
