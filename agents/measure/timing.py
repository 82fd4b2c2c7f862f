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

Log = Callable[[str], None]
"""Takes progress messages, one line each."""

Name = TypeVar("Name", bound=Hashable)
Sample = TypeVar("Sample")


@dataclass(frozen=True)
class Spread:
    """The samples of a figure, one for each round."""

    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median."""
        return statistics.median(self.samples)

    @property
    def least(self) -> float:
        """The smallest sample."""
        return min(self.samples)

    @property
    def most(self) -> float:
        """The largest sample."""
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
    """Applies ``function`` to the samples of each round.

    A machine that is slower in one round slows everything in that round, so ratios vary least.
    """
    columns = zip(*(spread.samples for spread in spreads), strict=True)
    return Spread(tuple(function(*column) for column in columns))


class Runner(Protocol):
    """Work that can go on for a while."""

    def measure(self, seconds: float) -> float:
        """Works for about ``seconds``; units of work per second."""

    def close(self) -> None:
        """Frees what the work needed."""


RunnerT = TypeVar("RunnerT", bound=Runner)


def measure_in_turn(
    measures: Mapping[Name, Callable[[float], Sample]], rounds: int, seconds: float, log: Log
) -> dict[Name, tuple[Sample, ...]]:
    """Takes a sample of about ``seconds`` of everything in each round, one after the other.

    ``log`` receives a line at the start of each round.

    Returns:
        All samples by name, in the order of the rounds.
    """
    samples: dict[Name, list[Sample]] = {name: [] for name in measures}
    for number in range(1, rounds + 1):
        log(f"round {number} of {rounds}")
        for name, measure in measures.items():
            samples[name].append(measure(seconds))
    return {name: tuple(values) for name, values in samples.items()}


@dataclass(frozen=True)
class Fastest(Generic[RunnerT]):
    """The name of the fastest ``variant`` of a trial, and its runner, ready to measure.

    ``trials`` holds the rate of every variant that could run.
    """

    variant: str
    runner: RunnerT
    trials: dict[str, float]


def fastest(
    variants: Mapping[str, Callable[[], RunnerT]], seconds: float, log: Log
) -> Fastest[RunnerT]:
    """Tries every variant twice for about ``seconds`` and keeps the one with the best rate.

    A variant that cannot run on this machine is logged and left out. At most two runners are open
    at any time.

    Raises:
        UserError: no variant can run, or the user's options do not allow a variant.
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
                    log(f"{name} is left out: {first_line(error)}")
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
    """A small piece of ``units`` units of work, repeated; a :class:`Runner`.

    On a GPU, ``work`` may return before the work is finished. torch has ``threads`` CPU threads
    meanwhile; ``on_close`` frees what ``work`` needs.
    """

    def __init__(
        self,
        work: Callable[[], object],
        units: int,
        device: str = "cpu",
        threads: int = 1,
        on_close: Callable[[], object] = lambda: None,
    ) -> None:
        self.units, self._on_close = units, on_close
        self._work, self._device, self._threads = work, device, threads
        with use_threads(threads):
            began = time.perf_counter()
            work()
            synchronize(device)
        self._first = self._usual = time.perf_counter() - began

    @property
    def compile_seconds(self) -> float:
        """How much longer the first call took than the calls of the last measurement."""
        return max(0.0, self._first - self._usual)

    def measure(self, seconds: float) -> float:
        """Works for about ``seconds``; units of work per second."""
        with use_threads(self._threads):
            # The previous measurement has left other data in the caches.
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
                # A wait after each piece would leave a GPU idle between pieces.
                if elapsed < seconds / 20:
                    between_waits *= 2

    def repeat(self, times: int) -> int:
        """Does ``times`` pieces; their units of work. A GPU may still be working on them."""
        with use_threads(self._threads):
            for _ in range(times):
                self._work()
        return times * self.units

    def close(self) -> None:
        """Frees what the work needed."""
        self._on_close()


def synchronize(device: str) -> None:
    """Waits until the device has finished all work given to it."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
