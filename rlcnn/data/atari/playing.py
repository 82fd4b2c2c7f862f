"""Plays episodes for their frames: at random in parallel processes, or by one policy."""

from __future__ import annotations

import functools
import hashlib
import itertools
import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from envs.checks import ObservationColour
from envs.errors import UserError
from envs.protocol import AtariProtocol
from rlcnn.data.atari.emulator import RAM_BYTES, AtariGame
from rlcnn.data.atari.options import Policy

LANES = 8
"""Episodes that a policy plays side by side; a constant, so that all batches have one size."""


@dataclass(frozen=True)
class EpisodeSpec:
    """Everything that determines an episode, except the policy.

    It is stopped after ``max_steps`` agent steps. Random play repeats the last action with
    ``repeat_probability``. ``seed`` is that of the emulator and of random play.
    """

    rom: str
    protocol: AtariProtocol
    obs: ObservationColour
    obs_size: int
    max_steps: int
    repeat_probability: float
    seed: int


class EpisodeRecord(NamedTuple):
    """Frames of one episode and the state of the emulator, one row for each observation.

    The last picture of a game is left out: no action is chosen on it, and it lacks the emulator's
    last frame, while the RAM is already that of the end.

    Attributes:
        frames: uint8 (n, C, obs_size, obs_size), the newest frame of each observation.
        digests: 16 bytes for each frame; equal if the frames are equal.
        ram: uint8 (n, 128), the RAM after the newest frame.
        actions: int64 (n,), the requested action between the last two frames, as its index in the
            game's minimal set; -1 at the start and for actions outside the set.
        rewards: int64 (n,), the reward of that step, not clipped; 0 at the start.
    """

    frames: np.ndarray
    digests: list[bytes]
    ram: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray


class _Recorder:
    """Plays one episode and records it."""

    def __init__(self, spec: EpisodeSpec, game: AtariGame) -> None:
        game.reseed(spec.seed)
        self.game = game
        # Not the game's own generator, since its openings must not depend on the actions.
        self.random = np.random.default_rng([spec.seed, 1])
        self._max_steps = spec.max_steps
        self._frames: list[np.ndarray] = []
        self._ram: list[np.ndarray] = []
        self._actions: list[int] = []
        self._rewards: list[int] = []
        self._record(self.game.reset(), action=-1, reward=0)

    def step(self, action: int) -> np.ndarray | None:
        """Takes a step; the new frame, or None at the end of the episode."""
        frame, reward = self.game.step(action)
        if frame is None or len(self._frames) > self._max_steps:
            return None
        minimal = self.game.minimal
        self._record(frame, minimal.index(action) if action in minimal else -1, reward)
        return frame

    def random_action(self) -> int:
        """A random action of the minimal set."""
        choices = self.game.minimal
        return choices[int(self.random.integers(len(choices)))]

    def fresh_stack(self, depth: int) -> np.ndarray:
        """The first observation: the newest frame behind zero frames."""
        frame = self._frames[-1]
        return np.concatenate([np.zeros_like(frame)] * (depth - 1) + [frame])

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
    """BLAKE2b of the pixels, 16 bytes; equal if the frames are equal."""
    return hashlib.blake2b(frame.tobytes(), digest_size=16).digest()


def play_at_random(spec: EpisodeSpec) -> EpisodeRecord:
    """Plays an episode by random actions; the result depends on ``spec`` alone."""
    recorder = _Recorder(spec, _last_game(spec.rom, spec.protocol, spec.obs, spec.obs_size))
    action = recorder.random_action()
    while recorder.step(action) is not None:
        if recorder.random.random() >= spec.repeat_probability:
            action = recorder.random_action()
    return recorder.record()


_last_game = functools.lru_cache(maxsize=1)(AtariGame)


def play_by_policy(
    specs: Iterable[EpisodeSpec], policy: Policy, *, frame_stack: int, exploration: float = 0.0
) -> Generator[EpisodeRecord, None, None]:
    """Plays episodes by a policy, ``LANES`` of them side by side, and yields them in order.

    Episodes, perhaps endless, differ only in their seeds. The policy gets an agent's observations.
    A batch has ``LANES`` rows while there are episodes: when one ends, the next takes its row.
    ``exploration`` is the probability of a random action of the minimal set instead.

    Raises:
        UserError: the policy's actions are not integers within the game's, one for each row.
    """
    upcoming = enumerate(specs)
    lanes: list[tuple[int, _Recorder]] = []
    stacks: list[np.ndarray] = []
    finished: dict[int, EpisodeRecord] = {}
    pending = 0
    for number, spec in itertools.islice(upcoming, LANES):
        game = AtariGame(spec.rom, spec.protocol, spec.obs, spec.obs_size)
        lanes.append((number, _Recorder(spec, game)))
        stacks.append(lanes[-1][1].fresh_stack(frame_stack))
    while lanes:
        actions = _checked(policy(np.stack(stacks)), len(lanes), lanes[0][1].game)
        for lane in reversed(range(len(lanes))):
            number, recorder = lanes[lane]
            explores = exploration > 0 and recorder.random.random() < exploration
            frame = recorder.step(recorder.random_action() if explores else actions[lane])
            if frame is not None:
                stacks[lane] = np.concatenate([stacks[lane][len(frame) :], frame])
                continue
            finished[number] = recorder.record()
            following = next(upcoming, None)
            if following is None:
                del lanes[lane], stacks[lane]
                continue
            lanes[lane] = (following[0], _Recorder(following[1], recorder.game))
            stacks[lane] = lanes[lane][1].fresh_stack(frame_stack)
        while pending in finished:
            yield finished.pop(pending)
            pending += 1


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
"""Plays episodes, perhaps endless, and yields them in order until it is closed."""


def play_in_turn(
    specs: Iterable[EpisodeSpec], *, by_policy: Play, at_random: Play, random_share: float
) -> Generator[EpisodeRecord, None, None]:
    """Plays episodes by a policy or at random, such that this share of frames is played at random.

    Every second episode of ``specs`` is the policy's and the others are random play's, so that each
    gets the same episodes for any number of processes. The share is reached up to one episode; 0
    and 1 play one kind only.
    """
    if random_share in (0, 1):
        yield from (at_random if random_share else by_policy)(specs)
        return
    halves = [itertools.islice(half, i, None, 2) for i, half in enumerate(itertools.tee(specs))]
    frames = [0, 0]
    with closing(by_policy(halves[0])) as policy, closing(at_random(halves[1])) as random:
        while True:
            kind = int(frames[1] < random_share * sum(frames))
            record = next((policy, random)[kind], None)
            if record is None:
                return
            frames[kind] += len(record.frames)
            yield record


@contextmanager
def random_players(workers: int) -> Iterator[Play]:
    """A function that plays episodes at random in ``workers`` processes; 1 uses this process.

    The results do not depend on the number of processes.
    """
    if workers == 1:
        yield lambda specs: (play_at_random(spec) for spec in specs)
        return
    # A child forked from a process with threads, such as torch's, may hang.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    try:
        yield lambda specs: _in_order(pool, specs, ahead=2 * workers)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    # Only the main process answers Ctrl-C.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)


def _in_order(
    pool: Executor, specs: Iterable[EpisodeSpec], ahead: int
) -> Generator[EpisodeRecord, None, None]:
    running: deque[Future[EpisodeRecord]] = deque()
    try:
        for spec in specs:
            running.append(pool.submit(play_at_random, spec))
            if len(running) > ahead:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:
        for future in running:
            future.cancel()
