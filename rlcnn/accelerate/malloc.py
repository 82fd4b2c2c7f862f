"""Keeps freed memory in the process, for the next allocation."""

from __future__ import annotations

import ctypes

# glibc's malloc.h; 32 MiB is the largest threshold that it takes.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_MMAP_THRESHOLD = 32 * 2**20
_NEVER_TRIM = 2**31 - 1


def keep_freed_memory() -> bool:
    """Asks glibc to keep freed memory for the next allocation; whether there is such a setting.

    Each minibatch frees the activations that the next one allocates again, some above 10 MB. If the
    kernel gets them back in between, every page is faulted in and zeroed again, which takes a tenth
    or more of an update on a CPU. The setting holds for the whole process: its memory then stays at
    its peak or somewhat above.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
        and mallopt(_M_TRIM_THRESHOLD, _NEVER_TRIM)
    )
