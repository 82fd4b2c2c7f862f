"""A function in the background."""

from __future__ import annotations

from threading import Event

import pytest
import torch

from rlcnn.accelerate.background import Background
from rlcnn.accelerate.devices import use_threads

CPU = torch.device("cpu")


def threads_before_and_after_the_wait(background: Background[tuple[int, int]]) -> list[int]:
    half_way = Event()

    def work() -> tuple[int, int]:
        background.expand_threads()
        alone = torch.get_num_threads()
        half_way.set()
        # Set by finish() below, at the latest when the test's own time is over.
        background._awaited.wait(60)
        background.expand_threads()
        return alone, torch.get_num_threads()

    background.start(work)
    assert half_way.wait(60)
    return list(background.finish())


def test_work_takes_the_threads_of_a_waiting_caller() -> None:
    background: Background[tuple[int, int]] = Background(CPU, 1, idle_threads=2)
    # Twice: what comes next begins with its own share again.
    for _ in range(2):
        assert threads_before_and_after_the_wait(background) == [1, 2]


def test_the_thread_count_stays_by_default() -> None:
    background: Background[tuple[int, int]] = Background(CPU, 1)
    assert threads_before_and_after_the_wait(background) == [1, 1]


def test_work_has_its_threads_whatever_is_set_elsewhere_before_it_computes() -> None:
    background: Background[int] = Background(CPU, 3)
    begun, go_on = Event(), Event()

    def work() -> int:
        begun.set()
        assert go_on.wait(60)
        return torch.get_num_threads()

    with use_threads(2):
        background.start(work)
        assert begun.wait(60)
        torch.set_num_threads(1)
        go_on.set()
        assert background.finish() == 3


def test_what_the_work_raises_reaches_who_asks_for_its_result() -> None:
    background: Background[float] = Background(CPU, 1)
    background.start(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        background.finish()
    assert not background.busy


def test_one_piece_of_work_at_a_time() -> None:
    background: Background[int] = Background(CPU, 1)
    background.start(lambda: 1)
    with pytest.raises(RuntimeError, match="not finished"):
        background.start(lambda: 2)
    assert background.finish() == 1
    with pytest.raises(RuntimeError, match="nothing was started"):
        background.finish()
