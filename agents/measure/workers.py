"""Learners in processes of their own, with their own threads, memory and compiled code."""

from __future__ import annotations

import math
import multiprocessing
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch

from agents.measure.learners import Learner
from agents.measure.peak_memory import peak_host_bytes
from agents.measure.timing import synchronize
from envs.errors import UserError

_PATIENCE = 10.0
_ERRORS = {"user error": UserError, "out of memory": MemoryError, "failed": RuntimeError}

# A worker is forked from a server process that has imported this module once and has no threads: it
# is not safe to fork a process with threads, such as this one, and importing torch and
# stable-baselines3 takes seconds. On macOS some system libraries do not survive a fork.
_START_METHOD = "forkserver" if sys.platform == "linux" else "spawn"


@dataclass(frozen=True)
class Facts:
    """Costs of a learner besides time.

    Attributes:
        compile_seconds: how much longer the first iteration took than the second: compilation
            and everything else that happens once.
        peak_host_bytes: see :func:`~agents.measure.peak_memory.peak_host_bytes`.
        peak_device_bytes: peak memory of torch's tensors on the GPU; None on a CPU.
        replay_bytes_per_transition: None without a replay.
    """

    compile_seconds: float
    peak_host_bytes: int
    peak_device_bytes: int | None
    replay_bytes_per_transition: float | None


class Worker:
    """A learner in its own process, warmed up and ready for measurements.

    Args:
        make: makes the learner in that process; must be picklable, the learner need not be.
        threads: torch's CPU threads in that process.
        device: where the learner computes.
        until: deadline on :func:`time.monotonic`'s clock: a process that has not answered by then
            is killed, also in :meth:`measure` and :meth:`facts`.
        start_method: of :mod:`multiprocessing`; "spawn" if torch must read the present
            environment variables when the process loads it.

    Raises:
        UserError: the options do not allow to make this learner or to learn.
        TimeoutError: the process did not answer in time and was killed.
        MemoryError: the process ran out of memory.
        RuntimeError: the process failed otherwise; the message ends with its traceback.
    """

    def __init__(
        self,
        make: Callable[[], Learner],
        threads: int,
        device: str,
        until: float = math.inf,
        start_method: str = _START_METHOD,
    ) -> None:
        self._until = until
        context: Any = multiprocessing.get_context(start_method)
        context.set_forkserver_preload([__name__])
        self._connection, theirs = context.Pipe()
        # Not a daemon: those may have no children, as environments in processes are.
        self._process = context.Process(target=_serve, args=(theirs, make, threads, device))
        self._process.start()
        theirs.close()
        try:
            self._reply()
        except BaseException:
            self.close()
            raise

    def measure(self, seconds: float) -> float:
        """Learns for about ``seconds`` in whole iterations; environment steps per second."""
        return float(self._ask("measure", seconds))

    def facts(self) -> Facts:
        """Costs so far."""
        facts = self._ask("facts")
        assert isinstance(facts, Facts)
        return facts

    def close(self) -> None:
        """Ends the process and its environments; closing twice does nothing."""
        # The process ends when its connection closes, also if this process is killed.
        self._connection.close()
        self._process.join(self._patience)
        for end in (self._process.terminate, self._process.kill):
            if self._process.is_alive():
                end()
                self._process.join(self._patience)

    @property
    def _patience(self) -> float:
        return min(_PATIENCE, max(0.5, self._until - time.monotonic()))

    def _ask(self, request: str, *arguments: object) -> Any:
        self._connection.send((request, *arguments))
        return self._reply()

    def _reply(self) -> Any:
        left = self._until - time.monotonic()
        if not self._connection.poll(None if left == math.inf else max(0.0, left)):
            # A process that hangs may not react to SIGTERM.
            self._process.kill()
            raise TimeoutError("the measured process was killed: it took too long")
        try:
            kind, value = self._connection.recv()
        except (EOFError, ConnectionResetError):
            self._process.join(_PATIENCE)
            raise RuntimeError(
                f"a measured process ended with status {self._process.exitcode}"
            ) from None
        if kind != "done":
            raise _ERRORS[kind](value)
        return value


class _Measured:
    """A learner and its measurements, in the learner's process."""

    def __init__(self, learner: Learner, device: str) -> None:
        self._learner, self._device = learner, device
        if learner.warm_up_steps:
            learner.learn(learner.warm_up_steps)
        (_, first), (_, second) = self._learn(1), self._learn(1)
        self._rate = learner.least_steps / second
        self._compile_seconds = max(0.0, first - second)

    def measure(self, seconds: float) -> float:
        wanted = round(self._rate * seconds / self._learner.least_steps)
        steps, taken = self._learn(max(1, wanted))
        self._rate = self._learner.steady_rate or steps / taken
        return self._rate

    def facts(self) -> Facts:
        on_gpu = torch.device(self._device).type == "cuda"
        return Facts(
            compile_seconds=self._compile_seconds,
            peak_host_bytes=peak_host_bytes(),
            peak_device_bytes=torch.cuda.max_memory_allocated(self._device) if on_gpu else None,
            replay_bytes_per_transition=self._learner.replay_bytes_per_transition,
        )

    def _learn(self, iterations: int) -> tuple[int, float]:
        """Steps and seconds of so many iterations."""
        began = time.perf_counter()
        steps = self._learner.learn(iterations * self._learner.least_steps)
        synchronize(self._device)
        return steps, time.perf_counter() - began


def _serve(connection: Connection, make: Callable[[], Learner], threads: int, device: str) -> None:
    # Ctrl-C reaches every process of the terminal; the parent process decides when to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    with connection, suppress(EOFError, BrokenPipeError):
        try:
            with closing(make()) as learner:
                measured = _Measured(learner, device)
                connection.send(("done", None))
                while True:
                    request, *arguments = connection.recv()
                    connection.send(("done", getattr(measured, request)(*arguments)))
        except (EOFError, BrokenPipeError):
            raise
        except UserError as error:
            connection.send(("user error", str(error)))
        except (MemoryError, torch.OutOfMemoryError) as error:
            connection.send(("out of memory", str(error)))
        except Exception as error:
            summary = f"{type(error).__name__}: {error}".splitlines()[0]
            connection.send(("failed", f"{summary}\n{traceback.format_exc()}"))
