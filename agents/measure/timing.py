"""Repeated measurements of several things in turn, so that all of them meet the same machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import torch

from envs.errors import UserError, first_line
from rlcnn.accelerate.devices import use_threads

Name = TypeVar("Name", bound=Hashable)
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Spread:
    """A figure as it was measured, once in each round."""

    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle one, or the mean of the two in the middle."""
        return statistics.median(self.samples)

    @property
    def least(self) -> float:
        """The smallest."""
        return min(self.samples)

    @property
    def most(self) -> float:
        """The largest."""
        return max(self.samples)

    def to_json(self) -> dict[str, Any]:
        """``median``, ``min``, ``max`` and all ``samples`` in the order of the rounds."""
        return {
            "median": self.median,
            "min": self.least,
            "max": self.most,
            "samples": list(self.samples),
        }


def round_by_round(function: Callable[..., float], *spreads: Spread) -> Spread:
    """``function`` of what was measured in the same round, for each round.

    A machine that is slower in one round slows all that is measured then, and a ratio least.
    """
    columns = zip(*(spread.samples for spread in spreads), strict=True)
    return Spread(tuple(function(*column) for column in columns))


class Runner(Protocol):
    """Work that can go on for a while."""

    def measure(self, seconds: float) -> float:
        """Works for about ``seconds``; units of work done per second."""

    def close(self) -> None:
        """Ends what it had started."""


RunnerT = TypeVar("RunnerT", bound=Runner)


def measure_in_turn(
    runners: Mapping[Name, Runner], rounds: int, seconds: float, tell: Tell
) -> dict[Name, Spread]:
    """Measures every runner once in each round, one after the other.

    Args:
        runners: by name.
        rounds: how many samples of each.
        seconds: how long a sample takes, about.
        tell: is told when a round begins.

    Returns:
        The rate of each runner, in units of work per second.
    """
    samples: dict[Name, list[float]] = {name: [] for name in runners}
    for number in range(1, rounds + 1):
        tell(f"round {number} of {rounds}")
        for name, runner in runners.items():
            samples[name].append(runner.measure(seconds))
    return {name: Spread(tuple(values)) for name, values in samples.items()}


@dataclass(frozen=True)
class Fastest(Generic[RunnerT]):
    """The variant that won a trial.

    Attributes:
        variant: its name.
        runner: ready to be measured further.
        trials: the rate of every variant that could run.
    """

    variant: str
    runner: RunnerT
    trials: dict[str, float]


def fastest(
    variants: Mapping[str, Callable[[], RunnerT]], seconds: float, tell: Tell
) -> Fastest[RunnerT]:
    """Tries every variant for about ``seconds``, twice, and keeps the one with the best rate.

    A variant that cannot run on this machine is told of and left out. At most two runners are open
    at any time.

    Raises:
        UserError: no variant can run, or one says why the user's options do not allow it.
    """
    trials: dict[str, float] = {}
    with ExitStack() as kept:
        best: Fastest[RunnerT] | None = None
        for name, make in variants.items():
            with ExitStack() as tried:
                try:
                    runner = make()
                    tried.callback(runner.close)
                    trials[name] = max(runner.measure(seconds) for _ in range(2))
                except UserError:
                    raise
                except Exception as error:
                    tell(f"{name} is left out: {first_line(error)}")
                    continue
                if best is None or trials[name] > trials[best.variant]:
                    kept.close()
                    kept.push(tried.pop_all())
                    best = Fastest(name, runner, trials)
        if best is None:
            raise UserError(f"none of these can run here: {'; '.join(variants)}")
        kept.pop_all()
    return best


class Loop:
    """One small piece of work, done over and over.

    Args:
        work: does it once; on a GPU it may return before the work is done.
        units: how many units of work that is.
        device: where the work is done.
        threads: CPU threads for torch to compute with.
        on_close: ends what ``work`` needs.

    Attributes:
        units: as given.
    """

    def __init__(
        self,
        work: Callable[[], object],
        units: int,
        device: str = "cpu",
        threads: int = 1,
        on_close: Callable[[], object] = lambda: None,
    ) -> None:
        self.units = units
        self._work, self._device = work, device
        self._threads, self._on_close = threads, on_close
        with use_threads(threads):
            began = time.perf_counter()
            work()
            synchronize(device)
        self._first = self._usual = time.perf_counter() - began

    @property
    def compile_seconds(self) -> float:
        """How much longer the first time took than those last measured."""
        return max(0.0, self._first - self._usual)

    def measure(self, seconds: float) -> float:
        """Works for about ``seconds``; units of work done per second."""
        with use_threads(self._threads):
            # What was measured before has left other data in the caches.
            self._work()
            synchronize(self._device)
            done, between_waits = 0, 1
            began = time.perf_counter()
            while True:
                for _ in range(between_waits):
                    self._work()
                done += between_waits
                synchronize(self._device)
                elapsed = time.perf_counter() - began
                if elapsed >= seconds:
                    self._usual = elapsed / done
                    return done * self.units / elapsed
                # Waiting after each piece would leave a GPU idle in between.
                if elapsed < seconds / 20:
                    between_waits *= 2

    def repeat(self, times: int) -> int:
        """Does the work so often; units of work, which a GPU may not have done yet."""
        with use_threads(self._threads):
            for _ in range(times):
                self._work()
        return times * self.units

    def close(self) -> None:
        """Ends what the work needed."""
        self._on_close()


def synchronize(device: str) -> None:
    """Waits until the device has done all it was given."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
