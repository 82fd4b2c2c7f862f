"""What all tests share."""

from __future__ import annotations

from collections.abc import Iterator

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
