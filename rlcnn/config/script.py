"""A script from its start to its exit status: output, signals, and errors in one line."""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
from collections.abc import Callable
from typing import Any

from envs.errors import UserError
from rlcnn.runs.progress import LastingStream
from rlcnn.runs.stopping import TrainingStopped

USER_ERROR = 2
INTERRUPTED = 130
# What a shell reports of a program that SIGPIPE ended.
PIPE_CLOSED = 141


class _StderrHandler(logging.StreamHandler[Any]):
    """Writes to what standard error is at the time: a progress bar puts itself in between."""

    @property
    def stream(self) -> Any:
        """Standard error, as it is now."""
        return sys.stderr

    @stream.setter
    def stream(self, value: Any) -> None:
        pass


def run_script(main: Callable[[list[str]], None]) -> None:
    """Runs a script's ``main`` on its arguments and exits.

    An error that the user can correct is printed in one line (status 2). Ctrl-C and SIGTERM end the
    script with status 130, also after a checkpoint was written: in ``train && evaluate`` the second
    command must not start. Output that cannot be written stops nothing: the status is then 141 if
    its reader has left, and otherwise 2.
    """
    output = LastingStream(sys.stdout)
    sys.stdout, sys.stderr = output, LastingStream(sys.stderr)
    logging.basicConfig(format="%(message)s", level=logging.WARNING, handlers=[_StderrHandler()])
    # Compiling takes minutes, in which nothing else is printed.
    logging.getLogger("rlcnn.accelerate").setLevel(logging.INFO)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # For environments of the user's own, as --env my_module:MyEnv-v0; last, to shadow nothing.
    sys.path.append(os.getcwd())
    status = _status_of(main)
    output.flush()
    if output.error is not None and status == 0:
        status = PIPE_CLOSED
        if not isinstance(output.error, BrokenPipeError):
            reason = output.error.strerror
            print(f"error: cannot write the output: {reason}", file=sys.stderr)
            status = USER_ERROR
    sys.exit(status)


def _status_of(main: Callable[[list[str]], None]) -> int:
    """Runs ``main`` and prints what the user can mend."""
    try:
        main(sys.argv[1:])
    except SystemExit as end:
        return int(end.code or 0)
    except (TrainingStopped, KeyboardInterrupt) as stop:
        print(str(stop) or "interrupted", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        problem = _users_problem(error)
        if problem is None:
            raise
        print(f"error: {problem}", file=sys.stderr)
        return USER_ERROR
    return 0


def _users_problem(error: Exception) -> str | None:
    """The message about an error that the user can correct; None for any other error."""
    if isinstance(error, UserError):
        return str(error)
    # torch, which is slow to import, has no exception of its own for the host's memory.
    short = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    if short or "can't allocate" in str(error):
        tried = re.search(r"tried to allocate [\d.]+ \w+", str(error), re.IGNORECASE)
        return (
            f"out of memory{f' ({tried[0].lower()})' if tried else ''}: smaller networks and"
            " batches, fewer environments (--num-envs) and shorter rollouts need less"
        )
    return None
