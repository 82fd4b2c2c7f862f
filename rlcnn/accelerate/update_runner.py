"""Runs an agent's updates: at once, or beside the next rollout."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

import torch

from rlcnn.accelerate.background import Background
from rlcnn.accelerate.cpu_threads import SpareCores
from rlcnn.accelerate.devices import Precision

R = TypeVar("R")


class UpdateRunner(Generic[R]):
    """Runs one update at a time and hands its result to a function of the caller's thread.

    An update takes a function, ``adjust_threads``, and may call it between its parts: torch then
    computes with as many CPU threads as are free. Only in "bf16" does the number change during an
    update: the results of float32 must not depend on what else runs on the machine.

    Attributes:
        overlap: whether :meth:`start` may be used.

    Args:
        device: where updates compute.
        precision: of the encoder that learns.
        overlap: as above; training then divides the CPU threads between rollout and update.
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
        adjusts = precision == "bf16"
        self._spare_cores = SpareCores(device.type == "cpu" and not overlap and adjusts)
        self._background: Background[R] | None = None
        self._on_finish: Callable[[R], object] | None = None
        if overlap:
            threads = torch.get_num_threads()
            self._background = Background(device, max(1, threads - 1), threads if adjusts else None)

    @property
    def busy(self) -> bool:
        """Whether an update was started and not yet finished."""
        return self._background is not None and self._background.busy

    @contextmanager
    def training(self) -> Iterator[None]:
        """Divides the CPU threads inside the block; afterwards no update is under way."""
        threads = torch.get_num_threads()
        if self.overlap:
            # The other threads belong to the update.
            torch.set_num_threads(1)
        try:
            with self._spare_cores:
                yield
        finally:
            torch.set_num_threads(threads)
            self.finish()

    def run(
        self, update: Callable[[Callable[[], object]], R], on_finish: Callable[[R], object]
    ) -> None:
        """Runs an update at once, as while graphs are captured, when nothing else may run."""
        self.finish()
        self._spare_cores.adjust()
        on_finish(update(self._spare_cores.adjust))

    def start(
        self, update: Callable[[Callable[[], object]], R], on_finish: Callable[[R], object]
    ) -> None:
        """Begins an update in the background; ``on_finish`` is called by :meth:`finish`."""
        assert self._background is not None
        background = self._background
        self.finish()
        self._on_finish = on_finish
        background.start(lambda: update(background.expand_threads))

    def finish(self) -> None:
        """Waits for the update under way, if there is one, and handles its result.

        Raises:
            Exception: what the update or ``on_finish`` raised; nothing is under way then.
        """
        if self._background is not None and self._background.busy:
            assert self._on_finish is not None
            result = self._background.finish()
            self._after_wait()
            self._on_finish(result)
