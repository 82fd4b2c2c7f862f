"""Games played for their frames: at random in processes side by side, or by a policy together."""

from __future__ import annotations

import functools
import hashlib
import itertools
import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from envs.checks import ObservationColour
from envs.errors import UserError
from envs.protocol import AtariProtocol
from rlcnn.data.atari.emulator import RAM_BYTES, AtariGame

Policy = Callable[[np.ndarray], np.ndarray]
"""Observations uint8 (games, frame_stack * C, obs_size, obs_size) -> actions (games,)."""

LANES = 8
"""Games that a policy plays side by side: always so many, and so a batch of one size."""


@dataclass(frozen=True)
class EpisodeSpec:
    """One game to be played, from its opening to its end: all that decides how it goes.

    Attributes:
        rom: the ROM's name.
        protocol: how it starts and what an action does.
        obs: "grey" or "rgb".
        obs_size: height and width of frames in pixels.
        max_steps: agent steps after which it is left.
        repeat_probability: of random play: chance that the last action is asked for once more.
        seed: of the emulator, and of what is played at random.
    """

    rom: str
    protocol: AtariProtocol
    obs: ObservationColour
    obs_size: int
    max_steps: int
    repeat_probability: float
    seed: int


class EpisodeRecord(NamedTuple):
    """What an agent saw of one game, and what the emulator knew: one row an observation.

    The picture a game ends with is left out: no action is chosen on it, and it lacks the
    emulator's last frame, while the RAM is that of the end.

    Attributes:
        frames: the newest frame of each observation, uint8 (n, C, obs_size, obs_size).
        digests: of each frame, 16 bytes: equal where the frames are.
        ram: uint8 (n, 128), as the newest frame left it.
        actions: the action asked for between the last two frames, int64 (n,), by its place in the
            game's minimal set; -1 at the opening and for actions that are not in the set.
        rewards: of that step, not clipped, int64 (n,); 0 at the opening.
    """

    frames: np.ndarray
    digests: list[bytes]
    ram: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray


class _Recorder:
    """A game under way, and what was seen of it."""

    def __init__(self, match: EpisodeSpec, game: AtariGame) -> None:
        game.reseed(match.seed)
        self.game = game
        # Not the emulator's own generator, whose openings must not hang on what was played.
        self.rng = np.random.default_rng([match.seed, 1])
        self.match = match
        self.asked = 0
        self._frames: list[np.ndarray] = []
        self._ram: list[np.ndarray] = []
        self._actions: list[int] = []
        self._rewards: list[int] = []
        self._record(self.game.reset(), action=-1, reward=0)

    def step(self, action: int) -> np.ndarray | None:
        """The new frame, or None when the game is over."""
        frame, reward = self.game.step(action)
        if frame is None or len(self._frames) > self.match.max_steps:
            return None
        minimal = self.game.minimal
        self._record(frame, minimal.index(action) if action in minimal else -1, reward)
        return frame

    def random_action(self) -> int:
        """One of the game's own few, or with ``repeat_probability`` the one before."""
        choices = self.game.minimal
        first = len(self._frames) == 1
        if first or self.rng.random() >= self.match.repeat_probability:
            self.asked = choices[int(self.rng.integers(len(choices)))]
        return self.asked

    @property
    def newest(self) -> np.ndarray:
        return self._frames[-1]

    def record(self) -> EpisodeRecord:
        return EpisodeRecord(
            frames=np.stack(self._frames),
            digests=[digest(frame) for frame in self._frames],
            ram=np.stack(self._ram).reshape(-1, RAM_BYTES),
            actions=np.array(self._actions, dtype=np.int64),
            rewards=np.array(self._rewards, dtype=np.int64),
        )

    def _record(self, frame: np.ndarray, action: int, reward: int) -> None:
        self._frames.append(frame)
        self._ram.append(self.game.ram())
        self._actions.append(action)
        self._rewards.append(reward)


def digest(frame: np.ndarray) -> bytes:
    """16 bytes that are equal where frames are: BLAKE2b of the pixels."""
    return hashlib.blake2b(frame.tobytes(), digest_size=16).digest()


def play_at_random(match: EpisodeSpec) -> EpisodeRecord:
    """Plays a game by random actions; a function of the match alone, wherever it is called."""
    recorder = _Recorder(match, _cached_game(match.rom, match.protocol, match.obs, match.obs_size))
    while recorder.step(recorder.random_action()) is not None:
        pass
    return recorder.record()


@functools.lru_cache(maxsize=1)
def _cached_game(
    rom: str, protocol: AtariProtocol, obs: ObservationColour, obs_size: int
) -> AtariGame:
    return AtariGame(rom, protocol, obs=obs, obs_size=obs_size)


def play_by_policy(
    matches: Iterable[EpisodeSpec], policy: Policy, *, frame_stack: int, exploration: float = 0.0
) -> Generator[EpisodeRecord, None, None]:
    """Plays games by a policy, ``LANES`` of them side by side, and gives them in their order.

    Args:
        matches: what to play; may be without end. All alike but for their seeds.
        policy: chooses the actions; sees what an agent sees. A batch is of ``LANES`` observations
            as long as there are games: where one ends, the next takes its row.
        frame_stack: frames in an observation.
        exploration: chance that a step's action is drawn from the game's own few instead.

    Raises:
        UserError: the policy's actions are not whole numbers within the game's, one a game.
    """
    upcoming = enumerate(matches)
    lanes: list[tuple[int, _Recorder]] = []
    stacks: list[np.ndarray] = []
    finished: dict[int, EpisodeRecord] = {}
    due = 0
    for number, match in itertools.islice(upcoming, LANES):
        game = AtariGame(match.rom, match.protocol, obs=match.obs, obs_size=match.obs_size)
        lanes.append((number, _Recorder(match, game)))
        stacks.append(_fresh_stack(lanes[-1][1].newest, frame_stack))
    while lanes:
        actions = _checked(policy(np.stack(stacks)), len(lanes), lanes[0][1].game)
        for lane in reversed(range(len(lanes))):
            number, recorder = lanes[lane]
            action = actions[lane]
            if exploration and recorder.rng.random() < exploration:
                choices = recorder.game.minimal
                action = choices[int(recorder.rng.integers(len(choices)))]
            frame = recorder.step(action)
            if frame is not None:
                stacks[lane] = np.concatenate([stacks[lane][len(frame) :], frame])
                continue
            finished[number] = recorder.record()
            following = next(upcoming, None)
            if following is None:
                del lanes[lane], stacks[lane]
                continue
            lanes[lane] = (following[0], _Recorder(following[1], recorder.game))
            stacks[lane] = _fresh_stack(lanes[lane][1].newest, frame_stack)
        while due in finished:
            yield finished.pop(due)
            due += 1


def _fresh_stack(frame: np.ndarray, depth: int) -> np.ndarray:
    return np.concatenate([np.zeros_like(frame)] * (depth - 1) + [frame])


def _checked(actions: np.ndarray, count: int, game: AtariGame) -> list[int]:
    actions = np.asarray(actions)
    fits = actions.shape == (count,) and actions.dtype.kind in "iu"
    if not fits or actions.min() < 0 or actions.max() >= len(game.actions):
        raise UserError(
            f"the policy must answer {count} observations with as many whole numbers from 0 to "
            f"{len(game.actions) - 1}, not with {actions.tolist()}"
        )
    return [int(action) for action in actions]


Play = Callable[[Iterable[EpisodeSpec]], Generator[EpisodeRecord, None, None]]
"""Plays matches, of which there may be no end, and gives them in their order until closed."""


@contextmanager
def random_players(workers: int) -> Iterator[Play]:
    """A function that plays matches at random, in so many processes; 1 plays in this one.

    What it gives does not depend on their number.
    """
    if workers == 1:
        yield lambda matches: (play_at_random(match) for match in matches)
        return
    # Forked from a process with threads of its own, as torch has, a child may hang.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_settle_in)
    try:
        yield lambda matches: _in_order(pool, matches, ahead=2 * workers)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _settle_in() -> None:
    # Ctrl-C is for the process that waits for the games.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)


def _in_order(
    pool: Executor, matches: Iterable[EpisodeSpec], ahead: int
) -> Generator[EpisodeRecord, None, None]:
    upcoming = iter(matches)
    running: deque[Future[EpisodeRecord]] = deque(
        pool.submit(play_at_random, match) for match in itertools.islice(upcoming, ahead)
    )
    try:
        while running:
            played = running.popleft().result()
            running.extend(
                pool.submit(play_at_random, match) for match in itertools.islice(upcoming, 1)
            )
            yield played
    finally:
        for future in running:
            future.cancel()
