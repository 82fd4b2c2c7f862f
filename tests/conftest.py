"""What all tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

# How long an example takes says more of the machine than of the code.
settings.register_profile("rlcnn", deadline=None)
settings.load_profile("rlcnn")


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Lets torch compute with one CPU thread, as some comparisons to the bit need it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data that RLCNN_DATA names; it is no part of the project."""
    folder = Path(os.environ.get("RLCNN_DATA", ""))
    if "RLCNN_DATA" not in os.environ or not folder.is_dir():
        pytest.skip("RLCNN_DATA names no folder of real data")
    return folder
