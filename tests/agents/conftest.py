"""What tests of agents share."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import pytest
import torch

from rlcnn.runs import provenance

_ask_git = provenance._git_revision


@functools.cache
def _revision() -> tuple[str | None, bool | None]:
    return _ask_git()


@pytest.fixture(scope="module", autouse=True)
def git_asked_once() -> Iterator[None]:
    """Every attempt at a run records the revision, for which three git processes are started."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(provenance, "_git_revision", _revision)
        yield


@pytest.fixture
def torch_settings() -> Iterator[None]:
    """Agents set how torch computes on a GPU: restored after the test."""
    cudnn, matmul = torch.backends.cudnn, torch.get_float32_matmul_precision()
    before = cudnn.allow_tf32, cudnn.benchmark
    yield
    cudnn.allow_tf32, cudnn.benchmark = before
    torch.set_float32_matmul_precision(matmul)


@pytest.fixture
def deterministic(torch_settings: None) -> Iterator[None]:
    """The same kernels in the same order every time; gpu_agents.py sees to those of cuBLAS."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
