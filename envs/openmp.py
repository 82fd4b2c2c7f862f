"""How long torch's CPU threads spin while they wait for one another; set when this is imported.

On Linux torch brings GNU's OpenMP, whose threads wait for the slowest of them by spinning, for
300,000 turns (milliseconds) before they sleep. Beside another busy program one thread waits for its
core while the others spin on theirs, and training falls to a fraction of its rate. Few turns cost
nothing on an idle machine, where the others arrive before these are over. The library reads the
environment when it is loaded, so this module must be imported before torch. docs/performance.md has
the measurements.
"""

from __future__ import annotations

import os

SPIN_COUNT = 2_000
"""Turns of the waiting loop, some tens of microseconds, before a thread sleeps."""

_SPIN_COUNT_VARIABLE = "GOMP_SPINCOUNT"
_USER_SETTINGS = (_SPIN_COUNT_VARIABLE, "OMP_WAIT_POLICY", "KMP_BLOCKTIME", "KMP_LIBRARY")


def limit_spinning() -> None:
    """Sets the spin count for this process and its children, unless the user chose how to wait.

    Where torch is loaded already, only children follow it.
    """
    if not any(name in os.environ for name in _USER_SETTINGS):
        os.environ[_SPIN_COUNT_VARIABLE] = str(SPIN_COUNT)


limit_spinning()
