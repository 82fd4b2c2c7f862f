"""Observations of games played one after the other, no two of them equal."""

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

_USE = {"train": "learn from", "test": "test on"}

# Frames by number, oldest first.
Stack = tuple[int, ...]

# So many games in a row that each bring next to nothing new are enough to give up.
_PATIENCE = 40
_NEXT_TO_NOTHING = 0.002


@dataclass(frozen=True)
class Observations:
    """Observations of one part of a game's split, one row each.

    Attributes:
        stacks: int64 (n, frame_stack): frames by number, oldest first; 0 is the frame of zeros.
        ram: uint8 (n, 128).
        actions: int64 (n,): see :class:`~rlcnn.data.atari.playing.EpisodeRecord`.
        rewards: int64 (n,), not clipped.
        ages: int64 (n,): agent steps since the opening; at 0 there is no action and no reward.
        matches: int64 (n,): which of the games played it is from, counted from 0 in each part.
    """

    stacks: np.ndarray
    ram: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    ages: np.ndarray
    matches: np.ndarray

    def __len__(self) -> int:
        return len(self.stacks)


@dataclass(frozen=True)
class GameFrames:
    """Observations of one game, to learn from and held out.

    Attributes:
        frames: uint8 (frames, C, height, width), no two of them equal; the first is all zeros.
        parts: training and test observations: of different games, and no two of them equal.
        counts: of each part ``observations`` (kept), ``games`` (played) and ``duplicates``
            (observations passed over because an equal one was kept before).
    """

    frames: np.ndarray
    parts: Mapping[Part, Observations]
    counts: Mapping[Part, Mapping[str, int]]


def episode_seed(seed: int, part: Part, number: int) -> int:
    """The seed of one game, below 2**31: even for training and odd for testing, so never shared."""
    word = int(np.random.SeedSequence([seed, PARTS.index(part), number]).generate_state(1)[0])
    return 2 * (word % 2**30) + PARTS.index(part)


def collect(
    match: EpisodeSpec,
    wanted: Mapping[Part, int],
    *,
    frame_stack: int,
    seed: int,
    play: Play,
    on_progress: Callable[[int], None] = lambda new: None,
) -> GameFrames:
    """Plays a game over and over until there are as many different observations as wanted.

    Args:
        match: how it is played; each game gets a seed of its own.
        wanted: observations of each part, at least one.
        frame_stack: frames in an observation.
        seed: of the games.
        play: plays matches.
        on_progress: is told after each game how many observations it brought.

    Raises:
        UserError: the games show too few different observations.
    """
    channels = 1 if match.obs == "grey" else 3
    pool = _Pool((channels, match.obs_size, match.obs_size), frame_stack)
    parts: dict[Part, Observations] = {}
    counts: dict[Part, dict[str, int]] = {}
    for part in PARTS:
        matches = (
            dataclasses.replace(match, seed=episode_seed(seed, part, number))
            for number in itertools.count()
        )
        gathered: list[Observations] = []
        kept = duplicates = 0
        recent: deque[float] = deque(maxlen=_PATIENCE)
        with closing(play(matches)) as records:
            while kept < wanted[part]:
                played = next(records)
                rows, stacks, looked_at = pool.add(played, wanted[part] - kept)
                gathered.append(_observations(played, rows, stacks, len(gathered)))
                kept += len(rows)
                duplicates += looked_at - len(rows)
                on_progress(len(rows))
                recent.append(len(rows) / looked_at)
                if len(recent) == _PATIENCE and max(recent) < _NEXT_TO_NOTHING:
                    raise UserError(
                        f'{len(gathered)} games of "{match.rom}" show no more than {kept:,} '
                        f"different observations, but {wanted[part]:,} are wanted to {_USE[part]}: "
                        "ask for fewer, or play more at random"
                    )
        parts[part] = _joined(gathered)
        counts[part] = {"observations": kept, "games": len(gathered), "duplicates": duplicates}
    return GameFrames(pool.frames.finish(), parts, counts)


class _Pool:
    """Frames and observations, each taken in once."""

    def __init__(self, frame_shape: tuple[int, int, int], frame_stack: int) -> None:
        self.frames = FrameBuffer(frame_shape)
        # A black frame of the game is the same as the zeros of a fresh stack.
        self._numbers = {digest(np.zeros(frame_shape, dtype=np.uint8)): 0}
        self._seen: set[tuple[int, ...]] = set()
        self._depth = frame_stack

    def add(self, played: EpisodeRecord, wanted: int) -> tuple[list[int], list[Stack], int]:
        """Takes in what is new, up to ``wanted`` observations.

        Returns:
            The rows of the new observations, their stacks, and how many rows were looked at.
        """
        rows: list[int] = []
        stacks: list[Stack] = []
        numbers = [0] * (self._depth - 1)
        for row in range(len(played.frames)):
            numbers.append(self._number(played, row))
            # Frames are equal where their numbers are, and so are observations.
            stack = tuple(numbers[row:])
            if stack in self._seen:
                continue
            self._seen.add(stack)
            rows.append(row)
            stacks.append(stack)
            if len(rows) == wanted:
                break
        return rows, stacks, row + 1

    def _number(self, played: EpisodeRecord, row: int) -> int:
        key = played.digests[row]
        if key not in self._numbers:
            self._numbers[key] = len(self.frames)
            self.frames.append(played.frames[row : row + 1])
        return self._numbers[key]


def _observations(
    played: EpisodeRecord, rows: list[int], stacks: list[Stack], match: int
) -> Observations:
    ages = np.array(rows, dtype=np.int64)
    return Observations(
        stacks=np.array(stacks, dtype=np.int64),
        ram=played.ram[ages],
        actions=played.actions[ages],
        rewards=played.rewards[ages],
        ages=ages,
        matches=np.full(len(ages), match, dtype=np.int64),
    )


def _joined(gathered: list[Observations]) -> Observations:
    fields = [field.name for field in dataclasses.fields(Observations)]
    # A game that brought nothing new has no stacks, and so no width of them.
    some = [each for each in gathered if len(each)]
    return Observations(**{f: np.concatenate([getattr(each, f) for each in some]) for f in fields})
