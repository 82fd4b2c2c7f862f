"""What of torch and of Python's threads is replaced while the pretend GPU is in use."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from support.pretend_gpu.device import CUDA, PretendGPU
from support.pretend_gpu.functions import Functions
from support.pretend_gpu.graph import CUDAGraph, graph
from support.pretend_gpu.operations import Operations
from support.pretend_gpu.timeline import Event, Stream, join


@contextmanager
def installed(gpu: PretendGPU) -> Iterator[None]:
    """Inside, torch has a GPU, in this thread and in those that are started."""
    with pytest.MonkeyPatch.context() as patch:
        _patch_cuda(gpu, patch)
        _patch_torch(gpu, patch)
        _patch_threads(gpu, patch)
        with Functions(gpu), Operations(gpu):
            yield


class _Generator(torch.Generator):
    """A generator that knows which device it was made for."""

    _device: torch.device

    def __new__(cls, device: Any = "cpu") -> _Generator:
        self = super().__new__(cls, "cpu")
        self._device = torch.device(device)
        return self

    @property
    def device(self) -> torch.device:
        return self._device


class _Autocast(torch.autocast):
    """The host's autocast in place of the GPU's."""

    def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:
        super().__init__("cpu" if device_type == "cuda" else device_type, *args, **kwargs)


@contextmanager
def _in_stream(gpu: PretendGPU, stream: Stream | None) -> Iterator[None]:
    before = gpu.timeline.current
    gpu.timeline.current = stream or before
    try:
        yield
    finally:
        gpu.timeline.current = before


def _patch_cuda(gpu: PretendGPU, patch: pytest.MonkeyPatch) -> None:
    """Makes ``torch.cuda`` and ``torch.accelerator`` describe the pretend GPU."""
    timeline, total = gpu.timeline, gpu.total_memory
    properties = SimpleNamespace(
        name="pretend GPU", total_memory=total, major=9, minor=0, multi_processor_count=1
    )

    def set_state(state: torch.Tensor, device: Any = None) -> None:
        gpu.generator_state = state.clone()

    def seed(number: int) -> None:
        gpu.generator_state = torch.Generator().manual_seed(number).get_state()

    functions: dict[str, Any] = {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "init": lambda: None,
        "_lazy_init": lambda: None,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "set_device": lambda device: None,
        "device": lambda device: nullcontext(),
        "is_bf16_supported": lambda including_emulation=True: True,
        "get_device_name": lambda device=None: properties.name,
        "get_device_properties": lambda device=None: properties,
        "get_device_capability": lambda device=None: (9, 0),
        "mem_get_info": lambda device=None: (gpu.free_memory, total),
        "empty_cache": lambda: None,
        "reset_peak_memory_stats": lambda device=None: None,
        "synchronize": timeline.synchronize,
        "current_stream": lambda device=None: timeline.current,
        "default_stream": lambda device=None: timeline.default,
        "set_stream": lambda stream: setattr(timeline, "current", stream),
        "stream": partial(_in_stream, gpu),
        "Stream": partial(Stream, timeline),
        "Event": partial(Event, timeline),
        "CUDAGraph": partial(CUDAGraph, gpu),
        "graph": partial(graph, gpu),
        "is_current_stream_capturing": lambda: timeline.current.is_capturing(),
        "get_rng_state": lambda device=None: gpu.generator_state.clone(),
        "set_rng_state": set_state,
        "manual_seed": seed,
        "manual_seed_all": seed,
        "set_sync_debug_mode": lambda mode: setattr(gpu, "sync_debug_mode", mode),
    }
    for kind in ("memory_allocated", "memory_reserved", "max_memory_allocated"):
        functions[kind] = lambda device=None: 0
    for name, function in functions.items():
        patch.setattr(torch.cuda, name, function)
    accelerator = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_accelerator": lambda check_available=False: torch.device("cuda"),
        "current_device_index": lambda: 0,
        "set_device_index": lambda device: None,
        "current_stream": lambda device=None: timeline.current,
        "synchronize": timeline.synchronize,
    }
    for name, function in accelerator.items():
        patch.setattr(torch.accelerator, name, function)


def _patch_torch(gpu: PretendGPU, patch: pytest.MonkeyPatch) -> None:
    """Replaces what reads a tensor's device in C++."""
    patch.setattr(torch, "Generator", _Generator)
    # The real one accepts only torch's own streams.
    patch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: None)
    patch.setattr(torch, "autocast", _Autocast)
    patch.setattr(torch.amp, "autocast", _Autocast)
    for name in ("is_autocast_enabled", "get_autocast_dtype"):
        real = getattr(torch, name)
        patch.setattr(
            torch, name, lambda kind="cpu", real=real: real("cpu" if kind == "cuda" else kind)
        )
    group = torch._C._group_tensors_by_device_and_dtype

    def group_tensors(lists: Any, with_indices: bool = False) -> Any:
        def key(device: torch.device, dtype: torch.dtype, held: Any) -> Any:
            first = next(tensor for tensors in held[0] for tensor in tensors if tensor is not None)
            return (CUDA if gpu.device_of(first) == "cuda" else device), dtype

        return {key(*k, held): held for k, held in group(lists, with_indices).items()}

    patch.setattr(torch._C, "_group_tensors_by_device_and_dtype", group_tensors)


def _patch_threads(gpu: PretendGPU, patch: pytest.MonkeyPatch) -> None:
    """Installs the pretend GPU in new threads; a pool's thread knows what its caller knew."""
    run, submit = threading.Thread.run, ThreadPoolExecutor.submit

    def run_with_gpu(thread: threading.Thread) -> None:
        with Functions(gpu), Operations(gpu):
            run(thread)

    def submit_with_clock(pool: Any, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        clock = dict(gpu.timeline.host)

        def handed_over() -> Any:
            join(gpu.timeline.host, clock)
            return function(*args, **kwargs)

        return submit(pool, handed_over)

    patch.setattr(threading.Thread, "run", run_with_gpu)
    patch.setattr(ThreadPoolExecutor, "submit", submit_with_clock)
