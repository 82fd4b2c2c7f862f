"""State of the pretend GPU: where memory is, what was counted, and what was found wrong."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef

from support.pretend_gpu.schema import traits
from support.pretend_gpu.timeline import Memory, Timeline, join

aten = torch.ops.aten
CUDA = torch.device("cuda", 0)
HERE = Path(__file__).parent
ROOT = HERE.parents[2]


class CallContext(threading.local):
    """What one thread is doing inside torch.

    Attributes:
        ignore: operations are not those of the code under test.
        wanted: kind of the device that the caller named.
        gpu_argument: whether the caller passed a tensor of the GPU.
        generator: what the caller wants random numbers drawn from. A dispatch mode cannot see it.
    """

    ignore = False
    wanted: str | None = None
    gpu_argument = False
    generator: torch.Generator | None = None


class PretendGPU:
    """The device, and what was observed on it.

    Attributes:
        violations: what would be wrong on a GPU, with its place in the project, and how often.
        events: waits for the device, and copies to and from it, by kind.
        captures, replays: how many graphs were captured, and how often graphs were replayed.
        free_memory: bytes; a test can set it.
        timeline: streams, and what each of them and of the threads knows to be done.
        generator_state: of the device's default generator.
        sync_debug_mode: "default", or "error" to raise where the host waits.
        context: what each thread is doing inside torch.
    """

    total_memory = 80 * 2**30

    def __init__(self) -> None:
        self.violations: Counter[str] = Counter()
        self.events: Counter[str] = Counter()
        self.captures = self.replays = 0
        self.free_memory = self.total_memory
        self.timeline = Timeline()
        self.sync_debug_mode = "default"
        self.generator_state = torch.Generator().manual_seed(0).get_state()
        self.context = CallContext()
        self._memories: dict[int, Memory] = {}
        self._lock = threading.RLock()

    @property
    def waits(self) -> int:
        """How often the host waited for the device where the code did not ask for it."""
        return sum(count for kind, count in self.events.items() if kind.startswith("wait"))

    def report(self, what: str) -> None:
        """Records a violation with its place in the project."""
        places, frame = [], sys._getframe(1)
        while frame is not None and len(places) < 3:
            path = Path(frame.f_code.co_filename)
            ours = path.parent == HERE and not path.name.startswith("test_")
            if path.is_relative_to(ROOT) and not ours:
                places.append(f"{path.relative_to(ROOT)}:{frame.f_lineno}")
            frame = frame.f_back  # type: ignore[assignment]
        with self._lock:
            self.violations[f"{what} at {' < '.join(places)}"] += 1

    def take_violations(self) -> list[str]:
        """Returns the violations and forgets them, for tests that expect some."""
        found = list(self.violations)
        self.violations.clear()
        return found

    # -- memory ----------------------------------------------------------------------------------

    def memory_of(self, tensor: torch.Tensor) -> Memory | None:
        """Record of a tensor's memory; None for memory of the host that nothing was noted of."""
        return self._memories.get(tensor.untyped_storage()._cdata)

    def device_of(self, tensor: torch.Tensor) -> str:
        """Kind of device: "cuda" or "cpu"."""
        memory = self.memory_of(tensor)
        return memory.device if memory is not None else "cpu"

    def mark(self, tensor: torch.Tensor, device: str, pinned: bool = False) -> Memory:
        """Records where a new tensor is."""
        storage = tensor.untyped_storage()
        memory = Memory(StorageWeakRef(storage), device, pinned)
        with self._lock:
            self._memories[storage._cdata] = memory
            if len(self._memories) % 512 == 0:
                held = self._memories.items()
                self._memories = {key: m for key, m in held if not m.storage.expired()}
        return memory

    def touched_by_host(self, tensor: torch.Tensor, what: str, writes: bool = False) -> None:
        """The host is about to read or write a tensor; those of the device are left alone."""
        memory = self.memory_of(tensor)
        if memory is not None and memory.device == "cpu":
            memory.touched_by_host(self.timeline.host, what, self.report, writes)

    def access(self, what: str, reads: Iterable[Memory], writes: Iterable[Memory]) -> None:
        """One operation of the current stream reads and writes memory."""
        stream = self.timeline.current
        if stream.capture is not None:
            stream.capture.reads.update(reads)
            stream.capture.writes.update(writes)
            return
        with self._lock:
            number = stream.advance()
            for memory in reads:
                memory.read_by(stream, number, what, self.report)
            for memory in writes:
                memory.written_by(stream, number, what, self.report)

    def wait(self, what: str) -> None:
        """The host waits for all work of the current stream."""
        stream = self.timeline.current
        stream.refuse_in_capture(what)
        self.events[f"wait: {what}"] += 1
        if self.sync_debug_mode == "error":
            raise RuntimeError(f"called a synchronizing CUDA operation: {what}")
        join(self.timeline.host, stream.clock)

    # -- computing -------------------------------------------------------------------------------

    def execute(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], device: str = "cuda"
    ) -> Any:
        """Runs an operation; random numbers of the device come from generators of the device."""
        if not traits(func).draws:
            return func(*args, **kwargs)
        given = self.context.generator
        if given is not None:
            if given.device.type != device:
                what = f"Expected a '{device}' device type for generator but found '{given.device}'"
                self.report(what)
                raise RuntimeError(what)
            graph_ = self.timeline.current.capture
            if graph_ is not None and not graph_.knows(given):
                graph_.spoil("a generator that is not registered with the graph")
            return func(*args, **kwargs)
        if device != "cuda":
            return func(*args, **kwargs)
        with self._lock:
            host = torch.default_generator
            before = host.get_state()
            host.set_state(self.generator_state)
            result = func(*args, **kwargs)
            self.generator_state = host.get_state()
            host.set_state(before)
            return result

    def copy(self, to: torch.Tensor, source: torch.Tensor, non_blocking: bool) -> torch.Tensor:
        """``to.copy_(source)`` from one device to the other."""
        stream, upward = self.timeline.current, self.device_of(to) == "cuda"
        host = source if upward else to
        memory = self.memory_of(host) or self.mark(host, "cpu")
        kind = f"{'pinned' if memory.pinned else 'pageable'} memory"
        way = f"copy to the device from {kind}" if upward else f"copy to the host to {kind}"
        self.events[way] += 1
        if upward and not memory.pinned:
            # The driver copies pageable memory to its own memory at once.
            self.touched_by_host(source, "a copy")
        if stream.capture is not None:
            if not (memory.pinned and non_blocking):
                stream.capture.spoil(way)
            self.report(f"in a capture: {way}, which every replay would do again")
            stream.capture.save([to])
        with self.unseen():
            to.detach().copy_(source.detach())
        if stream.capture is not None:
            stream.capture.record(aten.copy_.default, (to.detach(), source.detach()), {}, to)
        read, written = self.memory_of(source), self.memory_of(to)
        self.access(way, [read] if read else [], [written] if written else [])
        if not non_blocking:
            self.wait(way)
        elif not upward:
            memory.arriving = dict(stream.clock)
        elif memory.pinned:
            memory.leaving = dict(stream.clock)
        return to

    @contextmanager
    def unseen(self) -> Iterator[None]:
        """Hides operations that are not those of the code under test."""
        before, self.context.ignore = self.context.ignore, True
        try:
            yield
        finally:
            self.context.ignore = before
