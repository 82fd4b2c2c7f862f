"""Peak memory of processes."""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
from pathlib import Path


def peak_host_bytes() -> int:
    """Most memory this process has held, and the processes it started through multiprocessing.

    It is resident memory, VmHWM in ``/proc``. Pages that processes share count once in each, and
    processes may have had their peaks at different times. Where there is no ``/proc`` it is what
    ``getrusage`` says of this process alone.
    """
    own = _peak(os.getpid())
    if own is None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        # Linux counts KiB here, macOS bytes.
        return peak if sys.platform == "darwin" else peak * 1024
    workers = (_peak(child.pid) for child in multiprocessing.active_children() if child.pid)
    return own + sum(peak or 0 for peak in workers)


def _peak(pid: int) -> int | None:
    # Not getrusage: a process begins with the peak of the one that started it.
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    peaks = (int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    return next(peaks, None)
