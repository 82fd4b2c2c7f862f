"""Fewer CPU threads while other programs compute on the same cores.

oneDNN's bfloat16 gradient of a convolution's filters synchronises its threads by spinning, several
times for each image, under any OpenMP setting. When two of them share a core, because another
program uses the other one, each synchronisation lasts a time slice of the scheduler: an update
takes ten times as long or more. One thread is then much faster than two.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Self

import torch

SECONDS = 1.0
"""Time between two measurements of the cores."""

_OUTDATED = 10 * SECONDS

_PROC = Path("/proc")
# Columns of a line of /proc/stat after the name of the core: times without computing.
_IDLE, _IO_WAIT = 3, 4
# Columns of /proc/PID/stat after the program's name, which may contain spaces: computing time.
_USER, _SYSTEM = 11, 12


class _Sample(NamedTuple):
    # Seconds since a fixed moment.
    time: float
    busy: float  # of computing, summed over the cores; also for other machines on this host
    own: float  # of computing for this process and its children


class SpareCores:
    """Lets torch compute with as many threads as other programs leave cores free.

    Inside a ``with`` block :meth:`adjust` sets torch's number of threads: at least one, at most as
    many as before the block, which its end restores. Another block soon after begins with the last
    one's number. Rounding then depends on what else runs on the machine. If not ``active``, or
    without the kernel's statistics in ``proc``, nothing changes. ``clock`` gives seconds.
    """

    def __init__(
        self, active: bool, proc: Path = _PROC, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._active, self._proc, self._clock = active, proc, clock
        affinity = getattr(os, "sched_getaffinity", None)
        self._cores = affinity(0) if affinity else set()
        self._most, self._free = 1, len(self._cores)
        self._before: _Sample | None = None

    def __enter__(self) -> Self:
        self._most = torch.get_num_threads()
        last, self._before = self._before, None
        if self._active and self._most > 1:
            # Measured from now on: programs of the time between may have ended.
            self._before = self._sample()
            if last is None or self._clock() - last.time > _OUTDATED:
                self._free = len(self._cores)
            self._use_free()
        return self

    def __exit__(self, *_: object) -> None:
        torch.set_num_threads(self._most)

    def adjust(self) -> None:
        """To be called between updates; measures once a second."""
        before = self._before
        if before is None or self._clock() - before.time < SECONDS:
            return
        now = self._before = self._sample()
        if now is None:
            return
        others = (now.busy - before.busy - (now.own - before.own)) / (now.time - before.time)
        self._free = round(len(self._cores) - others)
        self._use_free()

    def _use_free(self) -> None:
        wanted = min(self._most, max(1, self._free))
        if torch.get_num_threads() != wanted:
            torch.set_num_threads(wanted)

    def _sample(self) -> _Sample | None:
        """None without the kernel's statistics."""
        try:
            ticks = 1 / os.sysconf("SC_CLK_TCK")
            lines = (self._proc / "stat").read_text().splitlines()
            fields = {name: values for name, *values in map(str.split, lines)}
            busy = 0
            for core in self._cores:
                # The last two columns, of guests, are part of the first two.
                spent = [int(value) for value in fields[f"cpu{core}"][:8]]
                busy += sum(spent) - spent[_IDLE] - spent[_IO_WAIT]
            # Children run environments or decode images for this process.
            children = [child.pid for child in multiprocessing.active_children() if child.pid]
            own = sum(map(self._computed, [os.getpid(), *children]))
        except (OSError, KeyError, IndexError, ValueError, AttributeError):
            return None
        return _Sample(self._clock(), busy * ticks, own * ticks)

    def _computed(self, process: int) -> int:
        """Clock ticks."""
        fields = (self._proc / str(process) / "stat").read_text().rpartition(")")[2].split()
        return int(fields[_USER]) + int(fields[_SYSTEM])
