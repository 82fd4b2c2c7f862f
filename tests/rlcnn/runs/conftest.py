"""A new run, held for writing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.run_files import CONFIG

from rlcnn.runs.directory import RunDirectory


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunDirectory]:
    with RunDirectory.create(tmp_path / "run", CONFIG) as run:
        yield run
