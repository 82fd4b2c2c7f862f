"""Environments that step in a process of their own.

Gymnasium's ``AsyncVectorEnv`` and stable-baselines3's ``SubprocVecEnv`` start a process for each
environment, and wait for ever where one of them died: hence this module.
"""

from __future__ import annotations

import logging
import multiprocessing
import random
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from logging.handlers import BufferingHandler
from multiprocessing.connection import Connection
from multiprocessing.util import Finalize
from typing import Any

import cloudpickle
import cv2
import gymnasium as gym
import numpy as np

from envs.errors import EnvironmentFailure, describe_error
from envs.stepping.batch import BatchFacts, EnvBatch
from envs.stepping.checked import warn_once

# What stops the program: it ends its workers itself, once they have finished the step.
_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# Seconds in which a worker may finish its step and close its environments.
_CLOSE_SECONDS = 5.0
# Warnings that a worker may hold until its next answer.
_MOST_NOTICES = 1000


class WorkerBatch:
    """An :class:`~envs.stepping.batch.EnvBatch` in another process, with frames in shared memory.

    The process ends with ``close``, with this object and with this program, however that ends.
    """

    def __init__(
        self, env_fns: Sequence[Callable[[], gym.Env]], frames_shape: tuple[int, ...]
    ) -> None:
        """Starts the process.

        Args:
            env_fns: make the environments; sent by cloudpickle.
            frames_shape: of ``EnvBatch.frames``.
        """
        # A fork of this process would inherit locks that torch's threads hold.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["__main__", __name__])
        shared = context.RawArray("B", int(np.prod(frames_shape)))
        self.frames = _as_frames(shared, frames_shape)
        self._pipe, far_end = context.Pipe()
        self._process = context.Process(
            target=_work,
            args=(far_end, cloudpickle.dumps(env_fns), shared, frames_shape),
            name="environments",
            daemon=True,
        )
        with _interrupts_blocked():
            self._process.start()
        far_end.close()
        # multiprocessing waits for its processes at exit: these must have ended by then.
        self._close = Finalize(self, _end, args=(self._pipe, self._process), exitpriority=10)
        self._env_id = ""
        self._waiting = True

    @cached_property
    def facts(self) -> BatchFacts:
        """Facts about the environments; the first call waits until they are made."""
        facts: BatchFacts = self.receive()
        self._env_id = facts.env_id
        return facts

    def send(self, method: str, *arguments: Any) -> None:
        """Starts a call of a method of ``EnvBatch``; the result of an unfinished one is dropped."""
        if self._waiting:
            with suppress(Exception):
                self.receive()
        try:
            self._pipe.send((method, arguments))
        except OSError:
            raise self._died() from None
        self._waiting = True

    def receive(self) -> Any:
        """Waits for the result of the call, and warns of what the process noticed.

        Raises:
            EnvironmentFailure: an environment failed, or the process died.
        """
        try:
            succeeded, result, noticed = self._pipe.recv()
        except (EOFError, OSError):
            raise self._died() from None
        self._waiting = False
        # All processes may notice the same.
        for line in noticed:
            warn_once(line)
        if not succeeded:
            raise result
        return result

    def close(self) -> None:
        """Lets the process close its environments and end; closing twice does nothing."""
        self._close()

    def _died(self) -> EnvironmentFailure:
        self._process.join(_CLOSE_SECONDS)
        code = self._process.exitcode
        how = f"exit status {code}"
        if code is not None and code < 0:
            with suppress(ValueError):
                how = signal.Signals(-code).name
        named = f' of "{self._env_id}"' if self._env_id else ""
        return EnvironmentFailure(f"a process that steps environments{named} died ({how})")


def _end(pipe: Connection, process: multiprocessing.process.BaseProcess) -> None:
    # The worker ends where it next reads or writes.
    pipe.close()
    process.join(_CLOSE_SECONDS)
    if process.is_alive():
        process.kill()
        process.join()


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Starts processes that ignore such signals from their first moment: the parent ends them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _as_frames(shared: Any, shape: tuple[int, ...]) -> np.ndarray:
    return np.frombuffer(shared, dtype=np.uint8).reshape(shape)


def _work(pipe: Connection, env_fns: bytes, shared: Any, frames_shape: tuple[int, ...]) -> None:
    """Makes the environments and answers calls until the other end of the pipe is closed."""
    for number in _STOPPING:
        signal.signal(number, signal.SIG_IGN)
    cv2.setNumThreads(1)
    # The other process warns: it knows what was said before.
    notices = BufferingHandler(_MOST_NOTICES)
    warner = logging.getLogger(warn_once.__module__)
    warner.addHandler(notices)
    warner.propagate = False
    batch: EnvBatch | None = None

    def answer(method: str, arguments: Sequence[Any]) -> Any:
        nonlocal batch
        if batch is None:
            batch = EnvBatch(cloudpickle.loads(env_fns), _as_frames(shared, frames_shape))
            return batch.facts
        if method == "reset":
            _seed_generators(arguments[0][0])
        return getattr(batch, method)(*arguments)

    with suppress(EOFError, OSError):
        call: tuple[str, Sequence[Any]] = ("", ())
        while True:
            try:
                succeeded, result = True, answer(*call)
            # The environment may raise anything, also by sys.exit(): the parent answers it.
            except BaseException as error:
                succeeded, result = False, error
            _reply(pipe, succeeded, result, [record.getMessage() for record in notices.buffer])
            notices.flush()
            call = pipe.recv()
    if batch is not None:
        batch.close()


def _reply(pipe: Connection, succeeded: bool, result: Any, noticed: list[str]) -> None:
    try:
        pipe.send((succeeded, result, noticed))
    except OSError:
        raise
    # Pickling runs code of what is sent, which may raise anything.
    except Exception as error:
        pipe.send((False, EnvironmentFailure(_unsent(result, error)), noticed))


def _unsent(result: Any, error: Exception) -> str:
    if isinstance(result, BaseException):
        return describe_error(result)
    return (
        f"what an environment returned, such as its info, cannot be sent to another process:"
        f" {describe_error(error)}; --env-workers 0 sends nothing"
    )


def _seed_generators(seed: int | None) -> None:
    """Seeds the global generators, whose states are otherwise equal in all workers."""
    if seed is not None:
        random.seed(seed)
        np.random.seed(seed)
