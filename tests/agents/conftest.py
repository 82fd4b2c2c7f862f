"""What tests of agents share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from rlcnn.runs import provenance


@pytest.fixture(scope="session", autouse=True)
def git_asked_once() -> Iterator[None]:
    """Every attempt at a run notes the revision, for which three processes of git are started."""
    revision = provenance._git_revision()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(provenance, "_git_revision", lambda: revision)
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
