"""Memory kept between allocations."""

from __future__ import annotations

import platform
import resource
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys, torch
from agents.heap import keep_freed_memory

if sys.argv[1] == "kept":
    assert keep_freed_memory()

def take_and_free():
    torch.empty(20_000_000, dtype=torch.uint8).fill_(1)

for _ in range(2):
    take_and_free()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    take_and_free()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_memory_taken_again_is_not_faulted_in_again() -> None:
    def faults(how: str) -> int:
        told = subprocess.run(
            [sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True
        )
        return int(told.stdout)

    pages = 20_000_000 // resource.getpagesize()
    assert faults("kept") < pages / 10
