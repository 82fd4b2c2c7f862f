"""Copies between host and device, without waiting where that is safe."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np
import torch

B = TypeVar("B", bound=tuple[Any, ...])


def host_tensor(values: np.ndarray | torch.Tensor) -> torch.Tensor:
    """``values`` as a tensor of the same memory, if torch can use it, else of a copy.

    Torch takes no array with a negative stride, such as a flipped image.
    """
    if isinstance(values, np.ndarray) and any(stride < 0 for stride in values.strides):
        values = values.copy()
    return torch.as_tensor(values)


def pinned(values: np.ndarray | torch.Tensor, device: torch.device) -> torch.Tensor:
    """``values`` of the host in memory from which copies to ``device`` do not wait: pinned, for a
    GPU.

    Torch reuses such memory when the copies from it are done. A tensor of the device is returned
    unchanged.
    """
    tensor = host_tensor(values)
    if device.type != "cuda" or tensor.device.type != "cpu" or tensor.is_pinned():
        return tensor
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor)


def upload(values: np.ndarray | torch.Tensor, device: torch.device) -> torch.Tensor:
    """``values`` on ``device``, in order with the work of its current stream.

    A copy to a GPU does not wait. A copy from a GPU to the host does: readers of the result are not
    ordered by the stream.
    """
    return pinned(values, device).to(device, non_blocking=device.type == "cuda")


class PackedUpload:
    """Brings several small arrays to a device in one copy.

    Each copy costs the host some ten microseconds, however small it is. ``fields`` are shape and
    dtype of each array, by name.
    """

    def __init__(
        self, fields: Mapping[str, tuple[tuple[int, ...], torch.dtype]], device: torch.device
    ) -> None:
        self._fields, self._device = fields, device
        self._places: dict[str, slice] = {}
        end = 0
        for name, (shape, dtype) in fields.items():
            # Every dtype can be viewed at a multiple of 16 bytes.
            start = -(-end // 16) * 16
            end = start + math.prod(shape) * dtype.itemsize
            self._places[name] = slice(start, end)
        self._nbytes = end

    def pack(self, arrays: Mapping[str, np.ndarray]) -> torch.Tensor:
        """One array for each field, cast to its dtype -> uint8 (bytes,) on the host, pinned for a
        GPU.
        """
        packed = torch.empty(
            self._nbytes, dtype=torch.uint8, pin_memory=self._device.type == "cuda"
        )
        for name, field in self.unpack(packed).items():
            field.numpy()[...] = arrays[name]
        return packed

    def unpack(self, packed: torch.Tensor) -> dict[str, torch.Tensor]:
        """Views of what :meth:`pack` returned, on whatever device it is now, by name."""
        return {
            name: packed[self._places[name]].view(dtype).view(shape)
            for name, (shape, dtype) in self._fields.items()
        }


class Readback:
    """Brings results of a device to the host, which need not wait until it asks for them."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._event = torch.cuda.Event() if device.type == "cuda" else None
        self._host = torch.empty(0)

    def start(self, result: torch.Tensor) -> None:
        """Copies it as soon as it is computed."""
        if self._host.shape != result.shape or self._host.dtype != result.dtype:
            on_gpu = self._event is not None
            self._host = torch.empty(result.shape, dtype=result.dtype, pin_memory=on_gpu)
        self._host.copy_(result, non_blocking=True)
        if self._event is not None:
            self._event.record(torch.cuda.current_stream(self._device))

    def wait(self) -> np.ndarray:
        """The last result, once it has arrived."""
        if self._event is not None:
            self._event.synchronize()
        return self._host.numpy().copy()


class Prefetcher:
    """Copies batches to a device while the device computes with the batch before.

    A consumer queues its work on a batch and asks for the next one. While a GPU does this work, the
    host prepares the next batch, and a separate stream copies it. No copy blocks the host. On a CPU
    the batches are passed on unchanged.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        # One for all batches: torch keeps the memory of each stream apart.
        self._copying = torch.cuda.Stream(device) if device.type == "cuda" else None

    def prefetch(self, batches: Iterable[B]) -> Iterator[B]:
        """The batches, named tuples of tensors, some perhaps None, on the device and in order."""
        if self._copying is None:
            yield from batches
            return
        for batch in batches:
            with torch.cuda.stream(self._copying):
                moved = [None if t is None else upload(t, self._device) for t in batch]
            computing = torch.cuda.current_stream(self._device)
            computing.wait_stream(self._copying)
            for tensor in moved:
                if tensor is not None:
                    # Keeps its memory from later copies until the work on it is done.
                    tensor.record_stream(computing)
            named_tuple: Any = type(batch)
            yield named_tuple(*moved)


def read_late(results: Iterable[torch.Tensor], device: torch.device) -> Iterator[torch.Tensor]:
    """The results on the host, in order; each is read when the work on the next one is queued.

    So the device always has work while the host reads a result and prepares what comes next.
    Results are tensors of ``device``, computed as they are asked for.
    """
    if device.type != "cuda":
        yield from results
        return
    readback, started = Readback(device), False
    for result in results:
        if started:
            yield torch.from_numpy(readback.wait())
        readback.start(result)
        started = True
    if started:
        yield torch.from_numpy(readback.wait())
