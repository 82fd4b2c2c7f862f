"""Plays games until there are enough observations, and stores these on disk.

The same games are played only once.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import secrets
import shutil
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import safetensors.numpy

from envs.errors import UserError
from rlcnn.data.atari.playing import EpisodeRecord, EpisodeSpec, Play, digest
from rlcnn.runs import manifest
from rlcnn.runs.files import disk_errors, plain, read_json, write_json_atomic

Part = Literal["train", "test"]
PARTS: tuple[Part, ...] = ("train", "test")

_PURPOSE = {"train": "for training", "test": "for testing"}

# Collection fails after so many episodes in a row with less than this share of new observations.
_PATIENCE = 40
_LEAST_NEW = 0.002


class Observations(NamedTuple):
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


class GameFrames(NamedTuple):
    """Training and test observations of one game, from different episodes.

    Either no two are equal, or they are consecutive: each episode's, all in order.

    Attributes:
        frames: uint8 (frames, C, height, width), no two of them equal; the first is all zeros.
        parts: the observations.
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
    consecutive: bool = False,
    on_progress: Callable[[int], None],
) -> GameFrames:
    """Plays episodes of a game until there are as many different observations as wanted.

    Each episode is played by ``spec`` with its own seed. With ``consecutive`` every observation is
    kept, also one that occurred before. ``on_progress`` gets the number of new observations after
    each episode.

    Raises:
        UserError: the game shows too few different observations.
    """
    channels = 1 if spec.obs == "grey" else 3
    pool = _Pool((channels, spec.obs_size, spec.obs_size), frame_stack, consecutive)
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
                new, examined = pool.add(next(records), len(found), wanted[part] - kept)
                found.append(new)
                count = len(new.stacks)
                kept += count
                duplicates += examined - count
                on_progress(count)
                recent.append(count / examined)
                if len(recent) == _PATIENCE and max(recent) < _LEAST_NEW:
                    raise UserError(
                        f'{len(found)} games of "{spec.rom}" show only {kept:,} different'
                        f" observations, but {wanted[part]:,} are wanted {_PURPOSE[part]}: ask for"
                        " fewer, or play more at random"
                    )
        parts[part] = Observations(*map(np.concatenate, zip(*found, strict=True)))
        counts[part] = {"observations": kept, "games": len(found), "duplicates": duplicates}
    return GameFrames(pool.frames.finish(), parts, counts)


class _Pool:
    """Different frames and, unless they are consecutive, different observations."""

    def __init__(
        self, frame_shape: tuple[int, int, int], frame_stack: int, consecutive: bool
    ) -> None:
        self.frames = FrameBuffer(frame_shape)
        # A black frame of the game is the same as the zeros of a fresh stack.
        self._numbers = {digest(np.zeros(frame_shape, dtype=np.uint8)): 0}
        self._stacks: set[tuple[int, ...]] = set()
        self._frame_stack = frame_stack
        self._consecutive = consecutive

    def add(self, record: EpisodeRecord, episode: int, wanted: int) -> tuple[Observations, int]:
        """Adds at most ``wanted`` observations; returns the new ones and how many it examined."""
        found: dict[int, tuple[int, ...]] = {}
        numbers = [0] * (self._frame_stack - 1)
        for row, key in enumerate(record.digests):
            if key not in self._numbers:
                self._numbers[key] = len(self.frames)
                self.frames.append(record.frames[row : row + 1])
            numbers.append(self._numbers[key])
            # Observations are equal if their frame numbers are.
            stack = tuple(numbers[row:])
            if stack in self._stacks and not self._consecutive:
                continue
            self._stacks.add(stack)
            found[row] = stack
            if len(found) == wanted:
                break
        rows = np.array([*found], dtype=np.int64)
        new = Observations(
            # Without new observations the array would have no second dimension.
            stacks=np.array([*found.values()], dtype=np.int64).reshape(-1, self._frame_stack),
            ram=record.ram[rows],
            actions=record.actions[rows],
            rewards=record.rewards[rows],
            steps=rows,
            episodes=np.full(len(rows), episode, dtype=np.int64),
        )
        return new, row + 1


class FrameBuffer:
    """An array of frames that grows in place; joining a list would need twice the memory."""

    def __init__(self, frame_shape: tuple[int, ...]) -> None:
        """Starts with one frame of zeros; ``frame_shape``: (C, height, width)."""
        self._frames = np.zeros((1024, *frame_shape), dtype=np.uint8)
        self._count = 1

    def __len__(self) -> int:
        return self._count

    def append(self, frames: np.ndarray) -> None:
        """Adds frames, uint8 (n, C, height, width)."""
        count = self._count + len(frames)
        if count > len(self._frames):
            self._resize(max(count, len(self._frames) + len(self._frames) // 8))
        self._frames[self._count : count] = frames
        self._count = count

    def finish(self) -> np.ndarray:
        """All frames, uint8 (frames, C, height, width); the buffer cannot be used afterwards."""
        self._resize(self._count)
        return self._frames

    def _resize(self, count: int) -> None:
        # No other reference to the array exists, so nothing reads memory that has moved. The
        # operating system moves it without a copy.
        self._frames.resize((count, *self._frames.shape[1:]), refcheck=False)


_FRAMES, _OBSERVATIONS, _ABOUT = "frames.npy", "observations.safetensors", "about.json"

# Fields of Observations -> their names in files, which stay as they were first written.
_KEYS = {name: name for name in Observations._fields} | {"steps": "ages", "episodes": "matches"}


def cache_path(root: Path, name: str, settings: Mapping[str, Any]) -> Path:
    """The directory of a game's observations, which the JSON values in ``settings`` determine."""
    text = json.dumps(plain(settings), sort_keys=True)
    return root / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def read_cache(path: Path) -> GameFrames | None:
    """Reads what :func:`write_cache` wrote; None if it is missing or damaged."""
    if not path.is_dir() or manifest.flaw(path) is not None:
        return None
    counts = read_json(path / _ABOUT)["counts"]
    tensors = safetensors.numpy.load_file(path / _OBSERVATIONS)
    return GameFrames(
        # Mapped, not read: these frames may be copied into a buffer with other games' frames.
        frames=np.load(path / _FRAMES, mmap_mode="c", allow_pickle=False),
        parts={
            part: Observations(**{name: tensors[f"{part}/{key}"] for name, key in _KEYS.items()})
            for part in PARTS
        },
        counts={part: counts[part] for part in PARTS},
    )


def write_cache(path: Path, collected: GameFrames, settings: Mapping[str, Any]) -> None:
    """Writes collected observations, all or nothing.

    Raises:
        UserError: the disk is full or cannot be written.
    """
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    with disk_errors(path):
        try:
            scratch.mkdir(parents=True)
            np.save(scratch / _FRAMES, collected.frames)
            tensors = {
                f"{part}/{key}": getattr(observations, name)
                for part, observations in collected.parts.items()
                for name, key in _KEYS.items()
            }
            safetensors.numpy.save_file(tensors, scratch / _OBSERVATIONS)
            about = {"settings": settings, "counts": collected.counts}
            write_json_atomic(scratch / _ABOUT, about)
            manifest.seal(scratch)
            # An existing directory is damaged, or another process has just written the same.
            shutil.rmtree(path, ignore_errors=True)
            scratch.rename(path)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
