"""Updates at once or in the background: who handles their results, where and when."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import torch

from rlcnn.accelerate.devices import use_threads
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
