"""Jobs in processes of their own: their values, their failures and their end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from agents.launchers.local import Job, LocalLauncher, divide, perform
from envs.errors import UserError
from rlcnn.runs.stopping import TrainingStopped


def cores() -> set[int]:
    print("this is said to nobody")
    os.write(2, b"nor is this\n")
    return os.sched_getaffinity(0)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def sleep(marker: Path) -> None:
    print("this is said to nobody", flush=True)
    marker.write_text(str(os.getpid()))
    time.sleep(600)


@pytest.mark.slow
def test_no_job_outlives_the_launcher(tmp_path: Path) -> None:
    marker, log = tmp_path / "sleeper", tmp_path / "sleep.log"
    launcher = LocalLauncher(workers=1, jobs=1)

    def stop_when_it_sleeps(running: Sequence[str]) -> None:
        if marker.exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(launcher.run([Job("sleep", partial(sleep, marker), log)], stop_when_it_sleeps))
    assert log.read_text() == "this is said to nobody\n"
    with pytest.raises(ProcessLookupError):
        os.kill(int(marker.read_text()), 0)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="cores cannot be chosen here")
def test_each_job_ends_in_its_own_way_and_none_outlives_the_launcher(tmp_path: Path) -> None:
    marker = tmp_path / "sleeper"
    tasks = {
        "cores": cores,
        "die": die,
        "sleep": partial(sleep, marker),
    }
    jobs = [Job(name, task, tmp_path / f"{name}.log") for name, task in tasks.items()]
    launcher = LocalLauncher(workers=2, jobs=len(jobs))
    seen: set[str] = set()
    with closing(launcher.run(jobs, seen.update)) as outcomes:
        ended = {}
        for outcome in outcomes:
            ended[outcome.name] = outcome
            if len(ended) == 2:
                break
        while not marker.exists():
            time.sleep(0.05)
    assert ended["cores"].state == "done"
    assert ended["cores"].value <= os.sched_getaffinity(0)
    assert (tmp_path / "cores.log").read_text() == "this is said to nobody\nnor is this\n"
    assert ended["die"].state == "failed"
    assert "SIGKILL" in ended["die"].reason
    assert {"cores", "die"} <= seen
    with pytest.raises(ProcessLookupError):
        os.kill(int(marker.read_text()), 0)


@pytest.mark.slow
def test_one_job_is_stopped_and_the_next_is_asked_for_only_then(tmp_path: Path) -> None:
    marker, events = tmp_path / "sleeper", []
    launcher = LocalLauncher(workers=1, jobs=2)

    def jobs() -> Iterator[Job]:
        yield Job("sleep", partial(sleep, marker), tmp_path / "sleep.log")
        events.append("asked for the next")
        yield Job("cores", cores, tmp_path / "cores.log")

    def stop_when_it_sleeps(running: Sequence[str]) -> None:
        if marker.exists():
            launcher.stop("nobody")
            launcher.stop("sleep")

    for outcome in launcher.run(jobs(), stop_when_it_sleeps):
        events.append(f"{outcome.name} {outcome.state}")
    # The task handles no signal, as a training does.
    assert events == ["sleep failed", "asked for the next", "cores done"]


@pytest.mark.parametrize(
    "count, workers, shares",
    [
        (4, 2, [[0, 1], [2, 3]]),
        (5, 2, [[0, 1], [2, 3, 4]]),
        (3, 1, [[0, 1, 2]]),
        (2, 5, [[0], [1], [0], [1], [0]]),
    ],
)
def test_cores_are_divided_among_workers(count: int, workers: int, shares: list[list[int]]) -> None:
    assert divide(range(count), workers) == shares


def test_no_more_workers_than_jobs_are_made() -> None:
    assert LocalLauncher(workers=8, jobs=3).workers == 3
    assert LocalLauncher(workers=0, jobs=1).workers == 1
    assert LocalLauncher(workers=2, jobs=9, threads=5).threads == 5


@pytest.mark.parametrize(
    "error, state, reason",
    [
        (TrainingStopped("at step 5"), "stopped", "at step 5"),
        (KeyboardInterrupt(), "stopped", ""),
        (UserError("no such game"), "failed", "no such game"),
        (MemoryError(), "failed", "out of memory: MemoryError"),
        (ZeroDivisionError("by zero\nand more"), "failed", "ZeroDivisionError: by zero"),
    ],
)
def test_the_reason_of_a_failed_task_is_one_line(
    error: BaseException, state: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def task() -> None:
        raise error

    assert perform(task) == (state, None, reason)
    # The traceback is in the log.
    assert capsys.readouterr().err
