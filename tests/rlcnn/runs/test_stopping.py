"""Being asked to stop."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from rlcnn.runs.stopping import StopRequest, TrainingStopped, handle_signals


def test_a_request_prints_one_line_and_stops_at_a_check() -> None:
    lines: list[str] = []
    stop = StopRequest(lines.append)
    stop.check()
    stop.handle(signal.SIGINT, None)
    assert len(lines) == 1
    with pytest.raises(TrainingStopped):
        stop.check()


def test_a_second_signal_is_not_waited_for() -> None:
    stop = StopRequest(lambda line: None)
    stop.handle(signal.SIGINT, None)
    with pytest.raises(KeyboardInterrupt):
        stop.handle(signal.SIGTERM, None)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_are_answered_inside_the_block_only(number: signal.Signals) -> None:
    def unanswered(number: int, frame: object) -> None:
        raise AssertionError("the block did not answer")

    # The tests themselves may run under nohup, which ignores SIGHUP.
    before = signal.signal(number, unanswered)
    try:
        stop = StopRequest(lambda line: None)
        with handle_signals(stop.handle):
            os.kill(os.getpid(), number)
            assert stop.requested
        assert signal.getsignal(number) is unanswered
    finally:
        signal.signal(number, before)


def test_a_terminal_that_closes_may_say_so_twice() -> None:
    stop = StopRequest(lambda line: None)
    for _ in range(2):
        stop.handle(signal.SIGHUP, None)
    assert stop.requested


def test_a_run_under_nohup_outlives_its_terminal() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stop = StopRequest(lambda line: None)
    try:
        with handle_signals(stop.handle):
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert not stop.requested


def test_a_thread_that_gets_no_signals_runs_all_the_same() -> None:
    done: list[bool] = []

    def run() -> None:
        with handle_signals(lambda *_: None):
            done.append(True)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert done
