"""Peak memory of processes."""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
from pathlib import Path


def peak_host_bytes() -> int:
    """Peak memory of this process plus the memory of its multiprocessing children.

    This process: its peak resident memory (VmHWM in ``/proc``). Children: their present
    proportional memory (Pss), which counts a shared page once in all. Without ``/proc``: the peak
    that ``getrusage`` reports for this process alone.
    """
    own = _kilobytes(f"/proc/{os.getpid()}/status", "VmHWM:")
    if own is None:
        # Only the fallback: on Linux this peak starts at the peak of the parent process.
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
