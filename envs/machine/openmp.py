"""Limits how long torch's CPU threads spin while they wait for each other, when it is imported.

On Linux torch uses GNU's OpenMP. Its threads wait for the slowest one by spinning for 300,000 turns
(milliseconds) before they sleep. Next to another busy program, one thread waits for its core while
the others spin on theirs, and training falls to a fraction of its rate.

Fewer turns prevent that. They are set on processors without fast bfloat16, where training computes
in float32. In bfloat16 training uses only cores that other programs leave free
(:mod:`rlcnn.accelerate.cpu_threads`), and fewer turns would cost a sixth of DQN's rate on an idle
machine.

OpenMP reads the environment when it is loaded, so this module must be imported before torch.
docs/lab/busy-machines.md has the measurements.
"""

from __future__ import annotations

import os
from pathlib import Path

from envs.machine.bfloat16 import has_fast_bfloat16

SPIN_COUNT = 2_000
"""Turns of the waiting loop before a thread sleeps, some tens of microseconds."""

DEFAULT_SPIN_COUNT = 300_000
"""The default of GNU's OpenMP."""

_SPIN_COUNT_VARIABLE = "GOMP_SPINCOUNT"
_USER_SETTINGS = (_SPIN_COUNT_VARIABLE, "OMP_WAIT_POLICY", "KMP_BLOCKTIME", "KMP_LIBRARY")


def best_spin_count(cpuinfo: Path = Path("/proc/cpuinfo")) -> int:
    """The spin count for this processor."""
    return DEFAULT_SPIN_COUNT if has_fast_bfloat16(cpuinfo) else SPIN_COUNT


def limit_spinning() -> None:
    """Sets the spin count for this process and its children, unless the user has set it.

    If torch is already loaded, it has an effect only for children.
    """
    if not any(name in os.environ for name in _USER_SETTINGS):
        os.environ[_SPIN_COUNT_VARIABLE] = str(best_spin_count())


limit_spinning()
