"""A pretend GPU: tensors of the host that are marked as the GPU's, and CUDA's rules about them.

A test takes the fixture ``pretend_gpu`` and uses ``device="cuda"``; the fixture fails the test if
anything would be wrong on a GPU:

- an operation mixes tensors of host and device (raises, as on a GPU);
- a generator belongs to the wrong device, or a graph does not know it (raises);
- a capture waits for the device or copies data of the host (raises, and so does the capture's end,
  which leaves the thread in the capture's stream, as ``torch.cuda.graph`` does);
- the host touches memory while a copy still writes or reads it;
- two streams touch one tensor, one of them writes, and neither waits for the other.

It counts captures, replays and waits for the device; ``torch.cuda.set_sync_debug_mode("error")``
makes a wait raise. A graph's results are invalid until its first replay, and numbers of the host
keep their value of the capture, as on a GPU.

It cannot see: what real kernels compute, and how fast; what cuDNN, cuBLAS and compiled code cannot
capture; memory that is freed while another stream still uses it; what a failed capture does to the
allocator; accesses through a numpy array that was made earlier; different parts of one storage
(two streams there look like a race); several GPUs; other processes.

Its parts: ``device`` (state, memory), ``functions`` and ``operations`` (torch as Python calls it,
and below autograd), ``graph``, ``timeline`` (streams, events, races) and ``patches`` (what of torch
is replaced).
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.pretend_gpu.device import CUDA, PretendGPU
from support.pretend_gpu.patches import installed

__all__ = ["CUDA", "PretendGPU", "pretend_gpu"]


@pytest.fixture
def pretend_gpu() -> Iterator[PretendGPU]:
    """A pretend GPU, ``cuda:0``; fails the test if a violation is left at its end."""
    gpu = PretendGPU()
    with installed(gpu):
        yield gpu
    gpu.context.ignore = True
    assert not gpu.violations, "\n".join(gpu.violations)
