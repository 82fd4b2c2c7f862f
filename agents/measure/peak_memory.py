"""Peak memory of processes."""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
from pathlib import Path


def peak_host_bytes() -> int:
    """Most memory this process has held, and the processes it started through multiprocessing.

    Of this process it is the peak of resident memory, VmHWM in ``/proc``. Of those it started it is
    what they hold now, Pss, in which a page that several share counts once in all. Where there is
    no ``/proc`` it is what ``getrusage`` says of this process alone.
    """
    own = _kilobytes(f"/proc/{os.getpid()}/status", "VmHWM:")
    if own is None:
        # Not everywhere: on Linux a process begins with the peak of the one that started it.
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        # Linux counts KiB here, macOS bytes.
        return peak if sys.platform == "darwin" else peak * 1024
    workers = multiprocessing.active_children()
    held = (_kilobytes(f"/proc/{worker.pid}/smaps_rollup", "Pss:") for worker in workers)
    return 1024 * (own + sum(kilobytes or 0 for kilobytes in held))


def _kilobytes(account: str, entry: str) -> int | None:
    try:
        lines = Path(account).read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith(entry)), None)
