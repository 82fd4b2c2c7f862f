"""Peak memory of a process."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from agents.measure import peak_memory
from agents.measure.peak_memory import peak_host_bytes

MEGABYTE = 2**20
on_linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc here")


def peaks_of_a_process(between: str) -> tuple[int, int]:
    """A new process's peaks before and after a statement."""
    # The file alone: importing the package takes memory, too.
    code = (
        "import runpy, sys; peak = runpy.run_path(sys.argv[1])['peak_host_bytes'];"
        f"before = peak(); {between}; print(before, peak())"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code, peak_memory.__file__],
        capture_output=True,
        text=True,
        check=True,
    )
    before, after = map(int, printed.stdout.split())
    return before, after


def test_freed_memory_counts() -> None:
    before, after = peaks_of_a_process(f"held = b'x' * {64 * MEGABYTE}; del held")
    assert after >= before + 32 * MEGABYTE


@on_linux
def test_a_process_does_not_begin_with_the_peak_of_the_one_that_started_it() -> None:
    held = np.ones(256 * MEGABYTE // 8)
    assert peaks_of_a_process("pass")[0] < held.nbytes


@on_linux
def test_processes_it_started_count() -> None:
    alone = peak_host_bytes()
    child = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
    child.start()
    try:
        assert peak_host_bytes() > alone
    finally:
        child.kill()
        child.join()
