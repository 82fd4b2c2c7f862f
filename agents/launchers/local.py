"""Where the trainings of a study run: processes of this machine, or of a Ray cluster."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing import connection as connections
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from envs.errors import UserError
from envs.machine.cores import usable_cores
from rlcnn.runs.stopping import TrainingStopped

State = Literal["done", "stopped", "failed"]
Tick = Callable[[Collection[str]], None]
"""Is called several times a second with the names of the jobs that are running."""

TICK_SECONDS = 0.5
_PATIENCE = 30.0


@dataclass(frozen=True)
class Job:
    """Something to be done in a process of its own.

    Attributes:
        name: tells it from the others.
        task: does it; both it and what it returns must be picklable.
        log: file that takes what it prints; new lines are added to its end.
    """

    name: str
    task: Callable[[], Any]
    log: Path


class Outcome(NamedTuple):
    """How a job ended: with a value, stopped for want of being wanted, or failed for a reason."""

    name: str
    state: State
    value: Any = None
    reason: str = ""


class Launcher(ABC):
    """Runs jobs, several at once.

    Attributes:
        workers: how many run at once.
        threads: CPU threads that each of them may use.
    """

    workers: int
    threads: int

    @abstractmethod
    def run(self, jobs: Sequence[Job], tick: Tick) -> Generator[Outcome, None, None]:
        """Runs jobs in their order and yields how each ended, as it ends.

        Closed before its end, or at Ctrl-C, it starts no more, asks those that are running to stop
        (a training then cuts a checkpoint) and waits for them; at a second Ctrl-C, no longer.
        """


class LocalLauncher(Launcher):
    """Processes of this machine, among which its cores are divided.

    A process ends with this one, however this one ends: a training stops with a checkpoint.

    Args:
        workers: processes at once; 0 takes one for each core, or, with a GPU, for each 4 cores.
        jobs: how many there will be at most: more processes are of no use.
        threads: CPU threads of each; 0 divides the cores.
        gpu: whether the jobs compute on a GPU.
        tell: is told, in lines, that processes are asked to stop.
    """

    def __init__(
        self,
        workers: int,
        jobs: int,
        threads: int = 0,
        gpu: bool = False,
        tell: Callable[[str], None] = print,
    ) -> None:
        self._tell = tell
        cores = usable_cores()
        wanted = workers or max(1, cores // 4 if gpu else cores)
        self.workers = max(1, min(wanted, jobs))
        self.threads = threads or max(1, cores // self.workers)
        self._cores = _pinnable_cores(cores, self.workers)

    def run(self, jobs: Sequence[Job], tick: Tick) -> Generator[Outcome, None, None]:
        """See :class:`Launcher`."""
        waiting = deque(jobs)
        free = list(reversed(range(self.workers)))
        running: list[_Child] = []
        try:
            while waiting or running:
                while waiting and free:
                    slot = free.pop()
                    running.append(_Child(waiting.popleft(), slot, self._cores[slot]))
                tick([child.job.name for child in running])
                signs = [sign for child in running for sign in child.signs]
                ready = connections.wait(signs, timeout=TICK_SECONDS)
                for child in [c for c in running if not set(c.signs).isdisjoint(ready)]:
                    running.remove(child)
                    free.append(child.slot)
                    yield child.outcome()
        except KeyboardInterrupt:
            self._tell(
                "stopping: runs at work cut a checkpoint when the update under way is done;"
                " Ctrl-C again stops at once, without one"
            )
            raise
        finally:
            _stop(running)


class _Child:
    """A job in its own process."""

    def __init__(self, job: Job, slot: int, cores: Sequence[int]) -> None:
        self.job, self.slot = job, slot
        # Forked from a process with threads of its own, torch would hang.
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, job, tuple(cores)))
        with _deaf_to_interrupts():
            self.process.start()
        theirs.close()

    @property
    def signs(self) -> tuple[Any, ...]:
        """Of which one is ready when the job has ended."""
        return self._connection, self.process.sentinel

    def outcome(self) -> Outcome:
        """How the job ended, which it has; its process is over then."""
        try:
            told = self._connection.recv() if self._connection.poll() else None
        except (EOFError, OSError):
            told = None
        self.end()
        if told is not None:
            return Outcome(self.job.name, *told)
        return Outcome(self.job.name, "failed", reason=_how_it_died(self.process.exitcode))

    def end(self, patience: float | None = _PATIENCE) -> None:
        """Waits for the process's end, and makes it where that takes too long."""
        self.process.join(patience)
        for make in (self.process.terminate, self.process.kill):
            if self.process.is_alive():
                make()
                self.process.join(_PATIENCE)
        self._connection.close()


def perform(task: Callable[[], Any]) -> tuple[State, Any, str]:
    """Does a task; how it ended, what it returned, and the reason it failed for."""
    try:
        return "done", task(), ""
    except (TrainingStopped, KeyboardInterrupt) as stop:
        print(str(stop) or "interrupted", file=sys.stderr)
        return "stopped", None, str(stop)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return "failed", None, str(error)
    except Exception as error:
        traceback.print_exc()
        if isinstance(error, MemoryError | torch.OutOfMemoryError):
            return "failed", None, f"out of memory: {_first_line(error)}"
        return "failed", None, f"{type(error).__name__}: {_first_line(error)}"


def divide(cores: Sequence[int], workers: int) -> list[list[int]]:
    """Cores for each worker: neighbours, and shared only where there are fewer than workers."""
    if len(cores) < workers:
        return [[cores[worker % len(cores)]] for worker in range(workers)]
    bounds = [len(cores) * worker // workers for worker in range(workers + 1)]
    return [list(cores[a:b]) for a, b in pairwise(bounds)]


def _pinnable_cores(usable: int, workers: int) -> list[list[int]]:
    """Empty for each worker where a quota, and no choice of cores, is what limits them."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = sorted(affinity(0)) if affinity else []
    return divide(cores, workers) if len(cores) == usable else [[] for _ in range(workers)]


def _serve(connection: Connection, job: Job, cores: tuple[int, ...]) -> None:
    # What the terminal says is for the process that started this one, which passes it on.
    os.setsid()
    if cores:
        os.sched_setaffinity(0, cores)
    _print_to(job.log)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    threading.Thread(target=_stop_without_parent, args=(connection,), daemon=True).start()
    told = perform(job.task)
    with suppress(BrokenPipeError):
        connection.send(told)


def _stop_without_parent(connection: Connection) -> None:
    """Waits for the end of the process that started this one, and then asks this one to stop."""
    with suppress(EOFError, OSError):
        connection.recv()
    os.kill(os.getpid(), signal.SIGTERM)


def _print_to(log: Path) -> None:
    """Sends all that this process prints, also from C, to a file."""
    with open(log, "ab", buffering=0) as file:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(file.fileno(), stream.fileno())
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]


def _stop(children: Sequence[_Child]) -> None:
    for child in children:
        child.process.terminate()
    try:
        for child in children:
            # As long as an update and a checkpoint may take.
            child.end(patience=None)
    except KeyboardInterrupt:
        for child in children:
            child.process.kill()
        for child in children:
            child.end()
        raise


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """What is started inside the block never hears Ctrl-C; this process does so after it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _how_it_died(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        name = signal.Signals(-exitcode).name
        why = "; was there too little memory?" if name == "SIGKILL" else ""
        return f"its process was ended by {name}{why}"
    return f"its process ended with status {exitcode} and no word"


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
