"""How long OpenMP's threads spin: settled before torch is loaded, wherever a program enters."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from envs.machine.openmp import DEFAULT_SPIN_COUNT, SPIN_COUNT, best_spin_count, limit_spinning

ROOT = Path(__file__).parents[3]
USER_SETTINGS = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME", "KMP_LIBRARY")
SCRIPTS = sorted(f"scripts.{path.stem}" for path in (ROOT / "scripts").glob("*.py"))

# Ends the program where torch is about to be loaded.
STOP_AT_TORCH = """
import importlib, os, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print("before torch:", os.environ.get("GOMP_SPINCOUNT"))
            sys.stdout.flush()
            os._exit(0)

sys.meta_path.insert(0, Finder())
importlib.import_module(sys.argv[1])
# Most modules leave torch to their first use.
import torch
"""


def spin_count_at_torch(module: str, **settings: str) -> str:
    """What a program that imports ``module``, and torch at last, has set when it loads torch."""
    environment = {k: v for k, v in os.environ.items() if k not in USER_SETTINGS}
    done = subprocess.run(
        [sys.executable, "-c", STOP_AT_TORCH, module],
        env={**environment, "PYTHONPATH": str(ROOT), **settings},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return done.stdout.strip()


@pytest.mark.parametrize(
    "module",
    # All within a package, as the processes of studies and of benchmarks import it, comes after it.
    ["envs", "rlcnn", "agents", *SCRIPTS],
)
def test_it_is_set_before_torch_is_loaded(module: str) -> None:
    assert spin_count_at_torch(module) == f"before torch: {best_spin_count()}"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("avx2 avx512f avx512_vnni", SPIN_COUNT),
        ("amx_bf16 amx_tile", DEFAULT_SPIN_COUNT),
    ],
)
def test_threads_spin_shortly_where_training_computes_in_float32(
    flags: str, expected: int, tmp_path: Path
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\nflags\t\t: fpu {flags}\n")
    assert best_spin_count(cpuinfo) == expected
    assert best_spin_count(tmp_path / "absent") == SPIN_COUNT


@pytest.mark.parametrize("name", USER_SETTINGS)
def test_a_users_own_setting_stays(name: str) -> None:
    value = "7" if name == "GOMP_SPINCOUNT" else "passive"
    expected = "7" if name == "GOMP_SPINCOUNT" else "None"
    assert spin_count_at_torch("agents", **{name: value}) == f"before torch: {expected}"


def test_children_inherit_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in USER_SETTINGS:
        monkeypatch.delenv(name, raising=False)
    limit_spinning()
    command = [sys.executable, "-c", "import os; print(os.environ['GOMP_SPINCOUNT'])"]
    assert subprocess.check_output(command, text=True).strip() == str(best_spin_count())
