"""``torch.cuda.CUDAGraph`` on the host: a list of operations with their very tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from support.pretend_gpu.schema import tensors_in
from support.pretend_gpu.timeline import Memory, Stream

if TYPE_CHECKING:
    from support.pretend_gpu.device import PretendGPU


class CUDAGraph:
    """Operations that run again, in the same memory, at every replay.

    A capture runs them once to learn the shapes of their results. Its end restores the memory that
    existed before, and fills new memory with NaN until the first replay.

    Attributes:
        reads, writes: the memory that a replay touches.
    """

    def __init__(self, gpu: PretendGPU, keep_graph: bool = False) -> None:
        self._gpu = gpu
        self._generators: list[torch.Generator] = []
        self.reset()

    def reset(self) -> None:
        self.reads: set[Memory] = set()
        self.writes: set[Memory] = set()
        self._operations: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []
        self._before: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}
        self._new: dict[int, torch.UntypedStorage] = {}
        self._stream: Stream | None = None
        self._spoilt = False

    def pool(self) -> tuple[int, int]:
        return (0, id(self))

    def register_generator_state(self, generator: torch.Generator) -> None:
        self._generators.append(generator)

    def knows(self, generator: torch.Generator) -> bool:
        """Whether random numbers may be drawn from a generator that is not the default one."""
        return any(generator is known for known in self._generators)

    def capture_begin(self, pool: Any = None, capture_error_mode: str = "global") -> None:
        self._stream = self._gpu.timeline.current
        if self._stream is self._gpu.timeline.default:
            raise RuntimeError("CUDA graphs must be captured on a non-default stream")
        if self._stream.capture is not None:
            raise RuntimeError("CUDA error: the stream is already being captured")
        self._default = self._gpu.generator_state
        self._states = [generator.get_state() for generator in self._generators]
        self._stream.capture = self
        self._gpu.captures += 1

    def capture_end(self) -> None:
        assert self._stream is not None, "capture_begin() was not called"
        self._stream.capture = None
        self._gpu.generator_state = self._default
        for generator, state in zip(self._generators, self._states, strict=True):
            generator.set_state(state)
        with self._gpu.unseen():
            for storage in self._new.values():
                # Bits all 1 are NaN in every floating type.
                storage.fill_(255)
            for storage, before in self._before.values():
                storage.copy_(before)
        self._before.clear()
        if self._spoilt:
            self._operations.clear()
            raise RuntimeError(
                "CUDA error: operation failed due to a previous error during capture"
            )

    def spoil(self, what: str) -> None:
        """Raises here and at the end of the capture, as CUDA does after an illegal call."""
        self._spoilt = True
        self._gpu.report(f"in a capture: {what}")
        raise RuntimeError(f"CUDA error: operation not permitted when stream is capturing ({what})")

    def save(self, written: list[torch.Tensor]) -> None:
        """Saves memory that the next recorded operation overwrites."""
        for tensor in written:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in self._new:
                self._before.setdefault(storage.data_ptr(), (storage, storage.clone()))

    def record(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Adds an operation; numbers and scalars of the host keep their present value."""
        frozen = self._frozen(args), {name: self._frozen(v) for name, v in kwargs.items()}
        self._operations.append((func, *frozen, result))
        for tensor in tensors_in(result):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in self._before:
                self._new.setdefault(storage.data_ptr(), storage)

    def _frozen(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return value if self._gpu.device_of(value) == "cuda" else value.clone()
        if isinstance(value, list | tuple):
            return type(value)(self._frozen(item) for item in value)
        return value

    def replay(self) -> None:
        self._gpu.timeline.current.refuse_in_capture("a replay")
        self._gpu.replays += 1
        with self._gpu.unseen(), torch.no_grad():
            for func, args, kwargs, result in self._operations:
                again = self._gpu.execute(func, args, kwargs)
                for place, value in zip(tensors_in(result), tensors_in(again), strict=True):
                    if place.untyped_storage().data_ptr() != value.untyped_storage().data_ptr():
                        place.detach().copy_(value)
        self._gpu.access("a graph's replay", self.reads, self.writes)


class graph:  # noqa: N801
    """``torch.cuda.graph``; like torch's, it stays in its stream where the capture's end raises."""

    def __init__(
        self,
        gpu: PretendGPU,
        cuda_graph: CUDAGraph,
        pool: Any = None,
        stream: Stream | None = None,
        capture_error_mode: str = "global",
    ) -> None:
        self._gpu, self._graph, self._mode = gpu, cuda_graph, capture_error_mode
        self._stream = stream or Stream(gpu.timeline)

    def __enter__(self) -> None:
        self._gpu.timeline.synchronize()
        self._before = self._gpu.timeline.current
        self._gpu.timeline.current = self._stream
        self._graph.capture_begin(capture_error_mode=self._mode)

    def __exit__(self, *error: object) -> None:
        self._graph.capture_end()
        self._gpu.timeline.current = self._before
