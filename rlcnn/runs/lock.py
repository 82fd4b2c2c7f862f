"""A directory's lock, held by one process; the operating system frees it however that ends."""

from __future__ import annotations

import errno
import fcntl
from pathlib import Path
from typing import IO

from envs.errors import UserError

LOCK = ".lock"


class RunTakenError(UserError):
    """Another run has the directory."""


class RunInUseError(RunTakenError):
    """Another process holds the run for writing."""


def acquire(path: Path, what: str = "run directory") -> IO[bytes]:
    """Lock a directory for this process; the returned file holds the lock until it is closed.

    Raises:
        RunInUseError: Another process holds it.
    """
    lock = (path / LOCK).open("ab")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise RunInUseError(f"{what} {path} is in use by another process") from None
    except OSError as error:
        # Some network file systems have no locks: runs there go without one.
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            lock.close()
            raise
    return lock
