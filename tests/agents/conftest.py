"""What tests of agents share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


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
