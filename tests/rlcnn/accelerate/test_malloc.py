"""Memory kept between allocations."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from rlcnn.accelerate import malloc

# Nothing but the C library: whatever else is loaded leaves a heap of its own behind.
FAULTS = """
import ctypes, resource, runpy, sys

heap = runpy.run_path(sys.argv[1])
if sys.argv[2] == "kept":
    assert heap["keep_freed_memory"]()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]

def take_and_free():
    blocks = [libc.malloc(10_000_000) for _ in range(10)]
    for block in blocks:
        libc.memset(block, 1, 10_000_000)
    for block in blocks:
        libc.free(block)

for _ in range(3):
    take_and_free()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    take_and_free()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    command = [sys.executable, "-c", FAULTS, str(Path(malloc.__file__)), how]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_memory_taken_again_is_not_faulted_in_again() -> None:
    assert faults("kept") < faults("given back") / 10
