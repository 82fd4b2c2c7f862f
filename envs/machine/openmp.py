"""How long torch's CPU threads spin while they wait for one another; set when this is imported.

On Linux torch brings GNU's OpenMP, whose threads wait for the slowest of them by spinning, for
300,000 turns (milliseconds) before they sleep. Beside another busy program one thread waits for its
core while the others spin on theirs, and training falls to a fraction of its rate.

Fewer turns mend that. They are set where training computes in float32, on processors without
bfloat16 instructions. In bfloat16 training takes only the cores that others leave free
(:mod:`rlcnn.accelerate.cpu_threads`); fewer turns would cost a sixth of DQN's rate on an idle
machine.

The library reads the environment when it is loaded, so this module must be imported before torch.
docs/performance.md has the measurements.
"""

from __future__ import annotations

import os
from pathlib import Path

SPIN_COUNT = 2_000
"""Turns of the waiting loop, some tens of microseconds, before a thread sleeps."""

DEFAULT_SPIN_COUNT = 300_000
"""What GNU's OpenMP takes where nothing is set."""

_SPIN_COUNT_VARIABLE = "GOMP_SPINCOUNT"
_USER_SETTINGS = (_SPIN_COUNT_VARIABLE, "OMP_WAIT_POLICY", "KMP_BLOCKTIME", "KMP_LIBRARY")
_BF16_FLAGS = {"avx512_bf16", "amx_bf16"}


def best_spin_count(cpuinfo: Path = Path("/proc/cpuinfo")) -> int:
    """The spin count for this processor.

    Args:
        cpuinfo: the kernel's account of the processors; torch is not to be asked before it is set.
    """
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        lines = []
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    return DEFAULT_SPIN_COUNT if _BF16_FLAGS & set(flags) else SPIN_COUNT


def limit_spinning() -> None:
    """Sets the spin count for this process and its children, unless the user chose how to wait.

    Where torch is loaded already, only children follow it.
    """
    if not any(name in os.environ for name in _USER_SETTINGS):
        os.environ[_SPIN_COUNT_VARIABLE] = str(best_spin_count())


limit_spinning()
