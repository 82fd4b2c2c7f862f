"""A function that runs in the background, in its own thread and CUDA stream."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import nullcontext
from threading import Event
from typing import Generic, TypeVar

import torch

T = TypeVar("T")


class Background(Generic[T]):
    """Runs one function at a time in its own thread; on a GPU, in its own stream.

    Torch and the emulator release Python's lock while they compute, so the function and its caller
    really run at the same time.

    Args:
        device: where the functions compute.
        num_threads: CPU threads of torch for the function. Torch keeps a count for each thread.
        idle_threads: thread count once the caller is only waiting; by default unchanged. The
            rounding of what is computed then depends on which side was faster.
    """

    def __init__(
        self, device: torch.device, num_threads: int, idle_threads: int | None = None
    ) -> None:
        self._num_threads = num_threads
        self._idle_threads = idle_threads or num_threads
        self._awaited = Event()
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._executor = ThreadPoolExecutor(
            1, "update", initializer=_keep_to_threads, initargs=(num_threads,)
        )
        self._future: Future[T] | None = None
        self._function: Callable[[], T] | None = None

    @property
    def busy(self) -> bool:
        """Whether a function was started and its result not yet taken."""
        return self._future is not None

    def start(self, function: Callable[[], T]) -> None:
        """Begins ``function``, in order with the work that the caller's stream holds by now."""
        if self.busy:
            raise RuntimeError("the function started before is not finished")
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))
        # Kept until the stream has finished, so that the memory of its tensors is not reused.
        self._function = function
        self._awaited.clear()
        self._future = self._executor.submit(self._run, function)

    def finish(self) -> T:
        """Waits for the function; returns its result or raises its exception.

        If the wait itself is interrupted, as by Ctrl-C, the function goes on, and a later call
        finishes it.
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

    def expand_threads(self) -> None:
        """Takes the waiting caller's threads; the function calls this between its parts."""
        wanted = self._idle_threads if self._awaited.is_set() else self._num_threads
        if torch.get_num_threads() != wanted:
            torch.set_num_threads(wanted)

    def _run(self, function: Callable[[], T]) -> T:
        with torch.cuda.stream(self._stream) if self._stream is not None else nullcontext():
            return function()


def _keep_to_threads(count: int) -> None:
    torch.set_num_threads(count)
    # Reading the count fixes it: a thread that never read it takes the count last set in any other.
    torch.get_num_threads()
