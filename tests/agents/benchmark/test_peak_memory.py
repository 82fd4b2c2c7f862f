"""Peak memory of a process."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from agents.benchmark import peak_memory
from agents.benchmark.peak_memory import peak_host_bytes

MEGABYTE = 2**20
on_linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc here")


def test_memory_that_was_held_and_given_back_counts() -> None:
    before = peak_host_bytes()
    # More than was ever held here, so that the peak moves.
    np.ones(before // 8 + 64 * MEGABYTE // 8)
    assert peak_host_bytes() >= before + 32 * MEGABYTE


@on_linux
def test_a_process_does_not_begin_with_the_peak_of_the_one_that_started_it() -> None:
    held = np.ones(256 * MEGABYTE // 8)
    # The file alone: importing the package takes memory, too.
    code = "import runpy, sys; print(runpy.run_path(sys.argv[1])['peak_host_bytes']())"
    told = subprocess.run(
        [sys.executable, "-c", code, peak_memory.__file__],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(told.stdout) < held.nbytes


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
