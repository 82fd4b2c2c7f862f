"""Keeps the memory that training frees and takes again in the process."""

from __future__ import annotations

import ctypes

# glibc's malloc.h; 32 MiB is the largest threshold that it takes.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_MMAP_THRESHOLD = 32 * 2**20
_NEVER_TRIM = 2**31 - 1


def keep_freed_memory() -> bool:
    """Asks glibc to keep freed memory for the next allocation rather than give it back at once.

    Each minibatch frees the activations that the next one takes again, some of them above 10 MB.
    Given back to the kernel in between, every page of them is faulted in and zeroed anew, which
    takes a tenth or more of an update on a CPU. It holds for the whole process, whose memory then
    stays at its peak, or somewhat above what the peak was otherwise.

    Returns:
        Whether the C library has such a setting and took it.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
        and mallopt(_M_TRIM_THRESHOLD, _NEVER_TRIM)
    )
