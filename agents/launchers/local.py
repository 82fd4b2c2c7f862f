"""Launchers, and the one that runs jobs in processes of this machine."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing import connection as connections
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from envs.errors import UserError, first_line
from envs.machine.cores import usable_cores
from rlcnn.runs.stopping import TrainingStopped

State = Literal["done", "stopped", "failed"]
Tick = Callable[[Collection[str]], None]
"""Called several times a second with the names of the running jobs."""

TICK_SECONDS = 0.5
_PATIENCE = 30.0


@dataclass(frozen=True)
class Job:
    """A task for a process of its own, whose output is appended to the file ``log``.

    Names are unique among the jobs; the task and its return value must be picklable.
    """

    name: str
    task: Callable[[], Any]
    log: Path


class Outcome(NamedTuple):
    """How a job ended: done with a value, stopped on request, or failed for a reason."""

    name: str
    state: State
    value: Any = None
    reason: str = ""


class Launcher(ABC):
    """Runs jobs: ``workers`` at once, each with ``threads`` CPU threads."""

    workers: int
    threads: int

    @abstractmethod
    def run(self, jobs: Iterable[Job], tick: Tick) -> Generator[Outcome, None, None]:
        """Runs jobs in order and yields the outcome of each as it ends.

        An iterator of jobs is asked for the next one only when a worker is free, after the
        outcomes before it were yielded.

        If closed early, or on Ctrl-C, it starts no more jobs, asks the running ones to stop (a
        training then saves a checkpoint) and waits for them. A second Ctrl-C ends the wait.
        """

    @abstractmethod
    def stop(self, name: str) -> None:
        """Asks a running job to stop, such as from ``tick``; its outcome follows as always."""


class LocalLauncher(Launcher):
    """Runs jobs in processes of this machine, which divide its cores.

    If this process ends in any way, its workers stop; a training then saves a checkpoint.

    Args:
        workers: processes at once; 0 means one per core or, with a GPU, one per 4 cores.
        jobs: number of jobs, which limits the processes.
        threads: CPU threads of each; 0 divides the cores.
        gpu: whether the jobs use a GPU.
        notify: called with a line when processes are asked to stop.
    """

    def __init__(
        self,
        workers: int,
        jobs: int,
        threads: int = 0,
        gpu: bool = False,
        notify: Callable[[str], None] = print,
    ) -> None:
        self._notify = notify
        cores = usable_cores()
        wanted = workers or max(1, cores // 4 if gpu else cores)
        self.workers = max(1, min(wanted, jobs))
        self.threads = threads or max(1, cores // self.workers)
        affinity = getattr(os, "sched_getaffinity", None)
        known = sorted(affinity(0)) if affinity else []
        # If a CPU quota, and not an affinity, sets the limit, workers are not pinned.
        pinned = len(known) == cores
        self._cores = divide(known, self.workers) if pinned else [[]] * self.workers
        self._running: list[_Child] = []

    def run(self, jobs: Iterable[Job], tick: Tick) -> Generator[Outcome, None, None]:
        """See :class:`Launcher`."""
        waiting = iter(jobs)
        free = list(reversed(range(self.workers)))
        running = self._running = []
        try:
            while True:
                while free and (job := next(waiting, None)) is not None:
                    slot = free.pop()
                    running.append(_Child(job, slot, self._cores[slot]))
                if not running:
                    break
                tick([child.job.name for child in running])
                signs = [sign for child in running for sign in child.signs]
                ready = connections.wait(signs, timeout=TICK_SECONDS)
                for child in [c for c in running if not set(c.signs).isdisjoint(ready)]:
                    running.remove(child)
                    free.append(child.slot)
                    yield child.outcome()
        except KeyboardInterrupt:
            self._notify(
                "stopping: current runs save a checkpoint after the current update; Ctrl-C again"
                " stops at once, without one"
            )
            raise
        finally:
            _stop(running)

    def stop(self, name: str) -> None:
        """See :class:`Launcher`."""
        for child in self._running:
            if child.job.name == name:
                child.process.terminate()


class _Child:
    """A job in its own process."""

    def __init__(self, job: Job, slot: int, cores: Sequence[int]) -> None:
        self.job, self.slot = job, slot
        # After a fork of a process with threads, torch hangs.
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, job, tuple(cores)))
        # Ctrl-C is blocked in the child, and delayed here meanwhile.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()

    @property
    def signs(self) -> tuple[Any, ...]:
        """One of these is ready when the job has ended."""
        return self._connection, self.process.sentinel

    def outcome(self) -> Outcome:
        """The outcome of the job, which has ended; waits for the end of its process."""
        try:
            message = self._connection.recv() if self._connection.poll() else None
        except (EOFError, OSError):
            message = None
        self.end()
        if message is not None:
            return Outcome(self.job.name, *message)
        status = self.process.exitcode
        reason = f"its process ended with status {status} and no message"
        if status is not None and status < 0:
            name = signal.Signals(-status).name
            why = "; was there too little memory?" if name == "SIGKILL" else ""
            reason = f"its process was ended by {name}{why}"
        return Outcome(self.job.name, "failed", reason=reason)

    def end(self, patience: float | None = _PATIENCE) -> None:
        """Waits for the end of the process, and ends it if that takes too long."""
        self.process.join(patience)
        for end in (self.process.terminate, self.process.kill):
            if self.process.is_alive():
                end()
                self.process.join(_PATIENCE)
        self._connection.close()


def perform(task: Callable[[], Any]) -> tuple[State, Any, str]:
    """Does a task; returns its state, its value and the reason of a failure."""
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
            return "failed", None, f"out of memory: {first_line(error)}"
        return "failed", None, f"{type(error).__name__}: {first_line(error)}"


def divide(cores: Sequence[int], workers: int) -> list[list[int]]:
    """Neighbouring cores for each worker, shared only if there are fewer cores than workers."""
    if len(cores) < workers:
        return [[cores[worker % len(cores)]] for worker in range(workers)]
    bounds = [len(cores) * worker // workers for worker in range(workers + 1)]
    return [list(cores[a:b]) for a, b in pairwise(bounds)]


def _serve(connection: Connection, job: Job, cores: tuple[int, ...]) -> None:
    # Signals of the terminal reach the parent process, which passes them on.
    os.setsid()
    if cores:
        os.sched_setaffinity(0, cores)
    # All output goes to the log, also from C.
    with open(job.log, "ab", buffering=0) as file:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(file.fileno(), stream.fileno())
            stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    threading.Thread(target=_stop_without_parent, args=(connection,), daemon=True).start()
    outcome = perform(job.task)
    with suppress(BrokenPipeError):
        connection.send(outcome)


def _stop_without_parent(connection: Connection) -> None:
    """Waits for the end of the parent process, then asks this one to stop."""
    with suppress(EOFError, OSError):
        connection.recv()
    os.kill(os.getpid(), signal.SIGTERM)


def _stop(children: Sequence[_Child]) -> None:
    for child in children:
        child.process.terminate()
    try:
        for child in children:
            # An update and a checkpoint may take long.
            child.end(patience=None)
    except KeyboardInterrupt:
        for child in children:
            child.process.kill()
        for child in children:
            child.end()
        raise
