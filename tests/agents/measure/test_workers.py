"""Learners in processes of their own."""

from __future__ import annotations

import math
import multiprocessing
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from support.tiny_agents import Watched

from agents.measure.workers import Worker
from envs.errors import UserError


def test_a_learner_is_warmed_up_measured_in_whole_iterations_and_closed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    threads = torch.get_num_threads()
    worker = Worker(partial(Watched, log), threads + 1, "cpu")
    # Not one whole iteration would fit into so short a time.
    assert worker.measure(1e-9) > 0
    facts = worker.facts()
    worker.close()
    worker.close()
    assert multiprocessing.active_children() == []
    assert log.read_text().splitlines() == [
        f"opens with {threads + 1} threads",
        "learns 7",
        *["learns 10"] * 3,
        "closes",
    ]
    assert torch.get_num_threads() == threads
    assert facts.compile_seconds >= 0
    assert facts.peak_host_bytes > 2**20
    assert facts.peak_device_bytes is None
    assert facts.replay_bytes_per_transition == 1.5


@pytest.mark.parametrize(
    "fails, error, message",
    [
        ("refused", UserError, "^width 0$"),
        ("breaks", RuntimeError, "(?s)^ZeroDivisionError: in learning\nTraceback"),
        ("fills memory", MemoryError, "^tried to allocate 1 TB$"),
        ("dies", RuntimeError, "ended with status 3"),
    ],
)
def test_what_goes_wrong_there_is_raised_here(
    fails: str, error: type[Exception], message: str, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    with pytest.raises(error, match=message):
        Worker(partial(Watched, log, fails=fails), 1, "cpu")
    assert multiprocessing.active_children() == []
    if fails == "breaks":
        assert log.read_text().splitlines()[-1] == "closes"


@pytest.mark.parametrize("until", [0.0, -math.inf, 0.5])
def test_a_process_that_does_not_answer_in_time_is_killed(until: float, tmp_path: Path) -> None:
    with pytest.raises(TimeoutError, match="was killed"):
        Worker(
            partial(Watched, tmp_path / "log", fails="hangs"), 1, "cpu", time.monotonic() + until
        )
    assert multiprocessing.active_children() == []


def test_a_learner_whose_iterations_overlap_says_its_rate_itself(tmp_path: Path) -> None:
    worker = Worker(partial(Watched, tmp_path / "log", steady_rate=123.5), 1, "cpu")
    assert worker.measure(1e-9) == 123.5
    worker.close()


@pytest.mark.slow
def test_the_server_that_workers_are_forked_from_asks_for_no_gpu_and_starts_no_thread() -> None:
    # Once CUDA's driver was asked anything, no fork of that process can use a GPU.
    code = """
import importlib, sys, threading
import torch
def refuse(*_): raise SystemExit("CUDA was asked")
for name in ("is_available", "device_count", "is_bf16_supported", "_lazy_init", "current_device"):
    setattr(torch.cuda, name, refuse)
for name in ("is_available", "current_accelerator", "device_count"):
    setattr(torch.accelerator, name, refuse)
importlib.import_module("agents.measure.workers")
sys.exit(f"{threading.active_count()} threads" if threading.active_count() > 1 else 0)
"""
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
