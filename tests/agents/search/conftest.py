"""What tests of searches share."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest


def _connect_without_waiting(file: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(file, check_same_thread=False)
    connection.execute("PRAGMA synchronous = OFF")
    return connection


@pytest.fixture(scope="session", autouse=True)
def quick_database() -> Iterator[None]:
    """Databases that do not wait for the disk: a search writes hundreds of times."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("agents.search.trials.connect", _connect_without_waiting)
        yield
