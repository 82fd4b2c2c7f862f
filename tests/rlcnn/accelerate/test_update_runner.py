"""Updates at once or in the background: who handles their results, where and when."""

from __future__ import annotations

import threading
from collections.abc import Callable
from threading import Event

import pytest
import torch

from rlcnn.accelerate.devices import Precision, use_threads
from rlcnn.accelerate.update_runner import UpdateRunner

CPU = torch.device("cpu")


def thread_name(_: Callable[[], object]) -> str:
    return threading.current_thread().name


def test_an_update_runs_at_once_in_the_callers_thread() -> None:
    results: list[str] = []
    runner: UpdateRunner[str] = UpdateRunner(CPU, "fp32", overlap=False)
    runner.run(thread_name, results.append)
    assert results == [threading.current_thread().name]
    assert not runner.busy


def test_a_background_result_is_handled_by_whoever_waits() -> None:
    events: list[str] = []
    runner: UpdateRunner[str] = UpdateRunner(
        CPU, "fp32", overlap=True, after_wait=lambda: events.append("waited")
    )
    runner.start(thread_name, lambda name: events.append(f"{name} in {thread_name(print)}"))
    assert runner.busy
    assert not events
    # The next update first finishes the one before.
    runner.start(thread_name, lambda _: events.append("second"))
    here = threading.current_thread().name
    assert events == ["waited", f"update_0 in {here}"]
    runner.finish()
    runner.finish()
    assert events[2:] == ["waited", "second"]


@pytest.mark.parametrize("fails", [False, True])
def test_after_a_training_no_update_is_under_way_and_threads_are_restored(fails: bool) -> None:
    results: list[str] = []
    with use_threads(3):
        runner: UpdateRunner[str] = UpdateRunner(CPU, "fp32", overlap=True)
        try:
            with runner.training():
                assert torch.get_num_threads() == 1
                runner.start(thread_name, results.append)
                if fails:
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            assert fails
        assert torch.get_num_threads() == 3
    assert not runner.busy
    assert len(results) == 1


def test_an_update_that_raises_does_so_where_it_is_waited_for() -> None:
    def fail(_: Callable[[], object]) -> str:
        raise ValueError("no update")

    runner: UpdateRunner[str] = UpdateRunner(CPU, "fp32", overlap=True)
    runner.start(fail, print)
    with pytest.raises(ValueError, match="no update"):
        runner.finish()
    assert not runner.busy


@pytest.mark.parametrize("precision, then", [("fp32", 1), ("bf16", 2)])
def test_only_in_bf16_an_update_takes_the_threads_of_a_waiting_caller(
    precision: Precision, then: int
) -> None:
    with use_threads(2):
        runner: UpdateRunner[list[int]] = UpdateRunner(CPU, precision, overlap=True)
    half_way, counts = Event(), []

    def update(adjust_threads: Callable[[], object]) -> list[int]:
        adjust_threads()
        before = torch.get_num_threads()
        half_way.set()
        # Set by finish() below, at the latest when the test's own time is over.
        runner._caller_waits.wait(60)
        adjust_threads()
        return [before, torch.get_num_threads()]

    # Twice: the next update begins with its own share again.
    for _ in range(2):
        half_way.clear()
        runner.start(update, counts.append)
        assert half_way.wait(60)
        runner.finish()
    assert counts == [[1, then]] * 2


def test_an_update_has_its_threads_whatever_is_set_elsewhere_before_it_computes() -> None:
    with use_threads(4):
        runner: UpdateRunner[int] = UpdateRunner(CPU, "fp32", overlap=True)
    begun, go_on, counts = Event(), Event(), []

    def update(_: Callable[[], object]) -> int:
        begun.set()
        assert go_on.wait(60)
        return torch.get_num_threads()

    with use_threads(2):
        runner.start(update, counts.append)
        assert begun.wait(60)
        torch.set_num_threads(1)
        go_on.set()
        runner.finish()
    assert counts == [3]
