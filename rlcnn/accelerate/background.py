"""One piece of work under way beside everything else."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import nullcontext
from threading import Event
from typing import Generic, TypeVar

import torch

T = TypeVar("T")


class Background(Generic[T]):
    """Runs one function at a time in a thread of its own; on a GPU, in a stream of its own.

    Torch and the emulator let go of Python's lock while they compute, so what runs here and what
    goes on outside really overlap.

    Args:
        device: what the functions compute on.
        num_threads: CPU threads that torch may use there; it counts them for each thread apart.
        awaited_threads: the same from when on nothing goes on outside but waiting for the
            function; by default as before. What is computed then rounds by who was faster.
    """

    def __init__(
        self, device: torch.device, num_threads: int, awaited_threads: int | None = None
    ) -> None:
        self._num_threads = num_threads
        self._awaited_threads = awaited_threads or num_threads
        self._awaited = Event()
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._executor = ThreadPoolExecutor(
            1, "update", initializer=_keep_to_threads, initargs=(num_threads,)
        )
        self._future: Future[T] | None = None
        self._function: Callable[[], T] | None = None

    @property
    def busy(self) -> bool:
        """Whether something was started whose result was not asked for."""
        return self._future is not None

    def start(self, function: Callable[[], T]) -> None:
        """Begins ``function``, which sees all that the caller's stream was told to do before."""
        if self.busy:
            raise RuntimeError("what was started before is not finished")
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))
        # Kept until the stream is through with it, too, lest its tensors' memory be given away.
        self._function = function
        self._awaited.clear()
        self._future = self._executor.submit(self._run, function)

    def finish(self) -> T:
        """Waits for what was started, and hands on its result or what it raised.

        Where the waiting itself is interrupted, as by Ctrl-C, what was started goes on: it is still
        to be finished.
        """
        future = self._future
        if future is None:
            raise RuntimeError("nothing was started")
        self._awaited.set()
        wait([future])
        if self._stream is not None:
            torch.cuda.current_stream(self._stream.device).wait_stream(self._stream)
        self._future = self._function = None
        return future.result()

    def take_free_threads(self) -> None:
        """To be called by the function between its parts: what waits for it needs no cores."""
        wanted = self._awaited_threads if self._awaited.is_set() else self._num_threads
        if torch.get_num_threads() != wanted:
            torch.set_num_threads(wanted)

    def _run(self, function: Callable[[], T]) -> T:
        with torch.cuda.stream(self._stream) if self._stream is not None else nullcontext():
            return function()


def _keep_to_threads(count: int) -> None:
    torch.set_num_threads(count)
    # Asked for, it is settled: a thread that never asked takes what was last set in any other.
    torch.get_num_threads()
