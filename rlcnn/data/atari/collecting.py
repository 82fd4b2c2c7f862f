"""Plays games until there are enough observations, no two of them equal."""

from __future__ import annotations

import dataclasses
import itertools
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Literal

import numpy as np

from envs.errors import UserError
from rlcnn.data.atari.playing import EpisodeRecord, EpisodeSpec, Play, digest
from rlcnn.data.atari.stacked import FrameBuffer

Part = Literal["train", "test"]
PARTS: tuple[Part, ...] = ("train", "test")

_PURPOSE = {"train": "for training", "test": "for testing"}

# Frame numbers, oldest first.
Stack = tuple[int, ...]

# Collection fails after so many episodes in a row with less than this share of new observations.
_PATIENCE = 40
_LEAST_NEW = 0.002


@dataclass(frozen=True)
class Observations:
    """Observations of one part of a game's split, one row each.

    Attributes:
        stacks: int64 (n, frame_stack): frame numbers, oldest first; 0 is the frame of zeros.
        ram: uint8 (n, 128).
        actions: int64 (n,): see :class:`~rlcnn.data.atari.playing.EpisodeRecord`.
        rewards: int64 (n,), not clipped.
        steps: int64 (n,): agent steps since the start of the episode; step 0 has no action and no
            reward.
        episodes: int64 (n,): number of the episode, counted from 0 in each part.
    """

    stacks: np.ndarray
    ram: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    steps: np.ndarray
    episodes: np.ndarray


@dataclass(frozen=True)
class GameFrames:
    """Training and test observations of one game.

    Attributes:
        frames: uint8 (frames, C, height, width), no two of them equal; the first is all zeros.
        parts: observations of both parts, from different episodes, and no two of them equal.
        counts: of each part ``observations`` (kept), ``games`` (episodes played) and ``duplicates``
            (observations equal to an earlier one, not kept).
    """

    frames: np.ndarray
    parts: Mapping[Part, Observations]
    counts: Mapping[Part, Mapping[str, int]]


def episode_seed(seed: int, part: Part, number: int) -> int:
    """The seed of one episode, below 2**31; even for training and odd for testing."""
    word = int(np.random.SeedSequence([seed, PARTS.index(part), number]).generate_state(1)[0])
    return 2 * (word % 2**30) + PARTS.index(part)


def collect(
    spec: EpisodeSpec,
    wanted: Mapping[Part, int],
    *,
    frame_stack: int,
    seed: int,
    play: Play,
    on_progress: Callable[[int], None] = lambda new: None,
) -> GameFrames:
    """Plays episodes of a game until there are as many different observations as wanted.

    Each episode is played by ``spec`` with its own seed. ``on_progress`` gets the number of new
    observations after each episode.

    Raises:
        UserError: the game shows too few different observations.
    """
    channels = 1 if spec.obs == "grey" else 3
    pool = _Pool((channels, spec.obs_size, spec.obs_size), frame_stack)
    parts: dict[Part, Observations] = {}
    counts: dict[Part, dict[str, int]] = {}
    for part in PARTS:
        specs = (
            dataclasses.replace(spec, seed=episode_seed(seed, part, number))
            for number in itertools.count()
        )
        found: list[Observations] = []
        kept = duplicates = 0
        recent: deque[float] = deque(maxlen=_PATIENCE)
        with closing(play(specs)) as records:
            while kept < wanted[part]:
                record = next(records)
                rows, stacks, examined = pool.add(record, wanted[part] - kept)
                found.append(_observations(record, rows, stacks, len(found)))
                kept += len(rows)
                duplicates += examined - len(rows)
                on_progress(len(rows))
                recent.append(len(rows) / examined)
                if len(recent) == _PATIENCE and max(recent) < _LEAST_NEW:
                    raise UserError(
                        f'{len(found)} games of "{spec.rom}" show only {kept:,} different'
                        f" observations, but {wanted[part]:,} are wanted {_PURPOSE[part]}: ask for"
                        " fewer, or play more at random"
                    )
        parts[part] = _joined(found)
        counts[part] = {"observations": kept, "games": len(found), "duplicates": duplicates}
    return GameFrames(pool.frames.finish(), parts, counts)


class _Pool:
    """Different frames and different observations."""

    def __init__(self, frame_shape: tuple[int, int, int], frame_stack: int) -> None:
        self.frames = FrameBuffer(frame_shape)
        # A black frame of the game is the same as the zeros of a fresh stack.
        self._numbers = {digest(np.zeros(frame_shape, dtype=np.uint8)): 0}
        self._stacks: set[Stack] = set()
        self._frame_stack = frame_stack

    def add(self, record: EpisodeRecord, wanted: int) -> tuple[list[int], list[Stack], int]:
        """Adds at most ``wanted`` new observations.

        Returns:
            The rows of the new observations, their stacks, and the number of examined rows.
        """
        rows: list[int] = []
        stacks: list[Stack] = []
        numbers = [0] * (self._frame_stack - 1)
        for row in range(len(record.frames)):
            numbers.append(self._number(record, row))
            # Observations are equal if their frame numbers are.
            stack = tuple(numbers[row:])
            if stack in self._stacks:
                continue
            self._stacks.add(stack)
            rows.append(row)
            stacks.append(stack)
            if len(rows) == wanted:
                break
        return rows, stacks, row + 1

    def _number(self, record: EpisodeRecord, row: int) -> int:
        key = record.digests[row]
        if key not in self._numbers:
            self._numbers[key] = len(self.frames)
            self.frames.append(record.frames[row : row + 1])
        return self._numbers[key]


def _observations(
    record: EpisodeRecord, rows: list[int], stacks: list[Stack], episode: int
) -> Observations:
    steps = np.array(rows, dtype=np.int64)
    return Observations(
        stacks=np.array(stacks, dtype=np.int64),
        ram=record.ram[steps],
        actions=record.actions[steps],
        rewards=record.rewards[steps],
        steps=steps,
        episodes=np.full(len(steps), episode, dtype=np.int64),
    )


def _joined(observations: list[Observations]) -> Observations:
    fields = [field.name for field in dataclasses.fields(Observations)]
    # The stacks of an episode without new observations have no second dimension.
    some = [each for each in observations if len(each.stacks)]
    return Observations(**{f: np.concatenate([getattr(each, f) for each in some]) for f in fields})
