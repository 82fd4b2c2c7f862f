"""Runs an agent's updates: at once, or in the background beside the next rollout."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, nullcontext
from threading import Event
from typing import Generic, TypeVar

import torch

from rlcnn.accelerate.cpu_threads import SpareCores
from rlcnn.accelerate.devices import Precision

R = TypeVar("R")
Update = Callable[[Callable[[], object]], R]
"""Takes a function to call between its parts, which adjusts torch's number of CPU threads."""


class UpdateRunner(Generic[R]):
    """Runs one update at a time and hands its result to a function of the caller's thread.

    In the background an update has its own thread and, on a GPU, its own stream. Torch and the
    emulator release Python's lock while they compute, so update and rollout really run at the same
    time.

    The number of threads changes during an update only in "bf16": the results of float32 must not
    depend on what else runs on the machine, nor on which side was faster.

    Args:
        device: where updates compute.
        precision: of the encoder that learns.
        overlap: whether :meth:`start` may be used; rollouts then have one of torch's CPU threads,
            and updates the others, or all of them once the caller is only waiting.
        after_wait: called when an update in the background was waited for.
    """

    def __init__(
        self,
        device: torch.device,
        precision: Precision,
        overlap: bool,
        after_wait: Callable[[], object] = lambda: None,
    ) -> None:
        self.overlap, self._after_wait = overlap, after_wait
        adjusts, threads = precision == "bf16", torch.get_num_threads()
        self._spare_cores = SpareCores(device.type == "cpu" and not overlap and adjusts)
        self._threads = max(1, threads - 1)
        self._idle_threads = threads if adjusts else self._threads
        self._caller_waits = Event()
        self._future: Future[R] | None = None
        self._update: Update[R] | None = None
        self._on_finish: Callable[[R], object] | None = None
        if overlap:
            self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
            self._executor = ThreadPoolExecutor(
                1, "update", initializer=_keep_to_threads, initargs=(self._threads,)
            )

    @property
    def busy(self) -> bool:
        """Whether an update was started and not yet finished."""
        return self._future is not None

    @contextmanager
    def training(self) -> Iterator[None]:
        """Divides the CPU threads inside the block; afterwards no update is under way."""
        threads = torch.get_num_threads()
        if self.overlap:
            torch.set_num_threads(1)
        try:
            with self._spare_cores:
                yield
        finally:
            torch.set_num_threads(threads)
            self.finish()

    def run(self, update: Update[R], on_finish: Callable[[R], object]) -> None:
        """Runs an update at once, as while graphs are captured, when nothing else may run."""
        self.finish()
        self._spare_cores.adjust()
        on_finish(update(self._spare_cores.adjust))

    def start(self, update: Update[R], on_finish: Callable[[R], object]) -> None:
        """Begins an update after all work that the caller's stream has; :meth:`finish` ends it."""
        self.finish()
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))
        # Kept until the stream has finished, so that the memory of its tensors is not reused.
        self._update, self._on_finish = update, on_finish
        self._caller_waits.clear()
        self._future = self._executor.submit(self._run_in_stream, update)

    def finish(self) -> None:
        """Waits for the update under way, if there is one, and handles its result.

        If the wait itself is interrupted, as by Ctrl-C, the update goes on, and a later call
        finishes it. What the update or ``on_finish`` raises is raised here; nothing is under way
        then.
        """
        future, on_finish = self._future, self._on_finish
        if future is None or on_finish is None:
            return
        self._caller_waits.set()
        wait([future])
        if self._stream is not None:
            torch.cuda.current_stream(self._stream.device).wait_stream(self._stream)
        self._future = self._update = self._on_finish = None
        result = future.result()
        self._after_wait()
        on_finish(result)

    def _run_in_stream(self, update: Update[R]) -> R:
        with torch.cuda.stream(self._stream) if self._stream is not None else nullcontext():
            return update(self._expand_threads)

    def _expand_threads(self) -> None:
        wanted = self._idle_threads if self._caller_waits.is_set() else self._threads
        if torch.get_num_threads() != wanted:
            torch.set_num_threads(wanted)


def _keep_to_threads(count: int) -> None:
    torch.set_num_threads(count)
    # Reading the count fixes it: a thread that never read it takes the count last set in any other.
    torch.get_num_threads()
