"""A GPU that is none: tensors of the host, marked as the GPU's, and what CUDA would say of them.

A machine without a GPU finds by it what would be wrong on one:

- tensors of host and device in one operation raise an error, as on a GPU;
- whatever waits for the device is counted, and raises in
  ``torch.cuda.set_sync_debug_mode("error")``;
- in a capture, waiting and copies of host data raise, and spoil the capture: its end raises, too,
  and the thread stays in the stream of the capture, as with ``torch.cuda.graph``;
- a graph's results hold rubbish until its first replay, and numbers of the host are those of the
  capture in every replay;
- the host touches memory that a copy is still going to, or coming from: reported;
- two streams touch one tensor, one of them to write, and neither waits for the other: reported;
- a generator of the wrong device, or one that a graph does not know, raises an error.

What it cannot see: what real kernels compute, and how fast; what cuDNN, cuBLAS and compiled code
cannot capture; memory that is given away while another stream still uses it; what a failed capture
does to the allocator; reads and writes through a numpy array that was made earlier; two streams
at different parts of one storage, which it takes for a race; several GPUs, and other processes.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from support.pretend_graph import CUDAGraph, graph, tensors_in
from support.timeline import Event, Memory, Stream, Timeline, join

aten = torch.ops.aten
CUDA = torch.device("cuda", 0)
ROOT = Path(__file__).parents[2]
INSTRUMENTS = {"pretend_gpu.py", "pretend_graph.py", "timeline.py"}
HOST_DATA = {torch.tensor, torch.as_tensor, torch.asarray}

# What waits for the device, since Python or a tensor's shape depends on what was computed.
WAITS = {
    aten._local_scalar_dense,
    aten.is_nonzero,
    aten.equal,
    aten.nonzero,
    aten.masked_select,
    aten.repeat_interleave,
    aten._unique2,
    aten.unique_dim,
    aten.unique_consecutive,
    aten.bincount,
}
INDEXING = {aten.index, aten._unsafe_index, aten.index_put, aten.index_put_, aten._index_put_impl_}


class _Sees(threading.local):
    """Where in torch a thread is."""

    nothing = False
    wanted: str | None = None
    """The device that was asked for by name."""
    among_gpu = False
    """Whether one of the arguments is the GPU's."""
    generator: torch.Generator | None = None
    """What random numbers are drawn from; operations are handed another object."""


class PretendGPU:
    """The device, and all that is noted of it.

    Attributes:
        violations: what would be wrong on a GPU, with the place in the project, and how often.
        events: waits for the device, and copies to and from it, by kind.
        captures, replays: of graphs.
        timeline: streams, and who knows what is done.
        generator_state: of the device's default generator.
        sync_debug_mode: "default", or "error" to raise where something waits.
    """

    def __init__(self) -> None:
        self.violations: Counter[str] = Counter()
        self.events: Counter[str] = Counter()
        self.captures = self.replays = 0
        self.timeline = Timeline()
        self.sync_debug_mode = "default"
        self.generator_state = torch.Generator().manual_seed(0).get_state()
        self._memories: dict[int, Memory] = {}
        self._lock = threading.RLock()
        self._sees = _Sees()
        self._special = self._special_functions()

    @property
    def waits(self) -> int:
        """How often the host has waited for the device against its will."""
        return sum(count for kind, count in self.events.items() if kind.startswith("wait"))

    def report(self, what: str) -> None:
        """Notes a violation, and where in the project it is."""
        places, frame = [], sys._getframe(1)
        while frame is not None and len(places) < 3:
            path = Path(frame.f_code.co_filename)
            if path.is_relative_to(ROOT) and path.name not in INSTRUMENTS:
                places.append(f"{path.relative_to(ROOT)}:{frame.f_lineno}")
            frame = frame.f_back  # type: ignore[assignment]
        with self._lock:
            self.violations[f"{what} at {' < '.join(places)}"] += 1

    def take_violations(self) -> list[str]:
        """The violations so far, which are then forgotten: for tests that expect some."""
        found = list(self.violations)
        self.violations.clear()
        return found

    # -- memory ----------------------------------------------------------------------------------

    def memory_of(self, tensor: torch.Tensor) -> Memory | None:
        """What is known of a tensor's memory, if anything is."""
        return self._memories.get(tensor.untyped_storage()._cdata)

    def device_of(self, tensor: torch.Tensor) -> str:
        """Kind of device: "cuda" or "cpu"."""
        memory = self.memory_of(tensor)
        return memory.device if memory is not None else "cpu"

    def mark(self, tensor: torch.Tensor, device: str, pinned: bool = False) -> Memory:
        """Says where a new tensor is."""
        storage = tensor.untyped_storage()
        memory = Memory(StorageWeakRef(storage), device, pinned)
        with self._lock:
            self._memories[storage._cdata] = memory
            if len(self._memories) % 512 == 0:
                held = self._memories.items()
                self._memories = {key: m for key, m in held if not m.storage.expired()}
        return memory

    def touched_by_host(self, tensor: torch.Tensor, what: str, writes: bool = False) -> None:
        """The host is about to read a tensor of its own, or to write to it."""
        memory = self.memory_of(tensor)
        if memory is not None and memory.device == "cpu":
            memory.touched_by_host(self.timeline.host, what, self.report, writes)

    def access(self, what: str, reads: Iterable[Memory], writes: Iterable[Memory]) -> None:
        """An operation of the current stream."""
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
        """The host waits for all that the current stream has to do."""
        stream = self.timeline.current
        stream.refuse_in_capture(what)
        self.events[f"wait: {what}"] += 1
        if self.sync_debug_mode == "error":
            raise RuntimeError(f"called a synchronizing CUDA operation: {what}")
        join(self.timeline.host, stream.clock)

    # -- operations ------------------------------------------------------------------------------

    def dispatch(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One operation, of the host or of the device."""
        traits, name = _traits(func), str(func)
        inputs = list(tensors_in((args, kwargs)))
        devices = [self.device_of(tensor) for tensor in inputs]
        creates = traits.creates and self._sees.wanted is not None
        if creates:
            device = self._sees.wanted
        elif "cuda" in devices or (traits.creates and self._sees.among_gpu):
            device = "cuda"
        else:
            device = "cpu"
        written = [t for place in traits.written for t in tensors_in(place(args, kwargs))]
        if device != "cuda":
            for tensor in inputs:
                self.touched_by_host(tensor, name, any(tensor is w for w in written))
            return self.execute(func, args, kwargs, device)
        if traits.copies and devices[0] != devices[1]:
            non_blocking = bool(args[2] if len(args) > 2 else kwargs.get("non_blocking"))
            return self.copy(inputs[0], inputs[1], non_blocking)
        if not creates:
            self._check_devices(func, inputs, devices)
        masks = func.overloadpacket in INDEXING and any(
            t.dtype in (torch.bool, torch.uint8) for t in tensors_in(args[1])
        )
        if func.overloadpacket in WAITS or masks:
            self.wait(name)
        graph_ = self.timeline.current.capture
        if graph_ is not None:
            graph_.save(written)
        result = self.execute(func, args, kwargs, "cuda")
        storages = {t.untyped_storage()._cdata for t in inputs}
        new = [
            tensor
            for tensor in tensors_in(result)
            if creates or tensor.untyped_storage()._cdata not in storages
        ]
        # In inference mode, what may be a view, such as reshape(), is seen as a whole.
        if traits.views and not new:
            return result
        if graph_ is not None:
            graph_.record(func, args, kwargs, result)
        reads = {m for t in inputs if (m := self.memory_of(t)) is not None and m.device == "cuda"}
        writes = {m for t in written if (m := self.memory_of(t)) is not None}
        writes.update(self.mark(tensor, "cuda") for tensor in new)
        self.access(name, reads - writes, writes)
        return result

    def _check_devices(self, func: Any, inputs: list[torch.Tensor], devices: list[str]) -> None:
        """Refuses what a GPU would not compute of tensors in two places."""
        odd = [t for t, device in zip(inputs, devices, strict=True) if device == "cpu" and t.ndim]
        if not odd:
            return
        whole = inputs[0], inputs[-1] if "put" in str(func) else inputs[0]
        if func.overloadpacket in INDEXING and not any(t is w for t in odd for w in whole):
            self.wait(f"{func} by indices of the host")
            return
        shapes = ", ".join(f"{d} {tuple(t.shape)}" for t, d in zip(inputs, devices, strict=True))
        self.report(f"two devices: {func} of {shapes}")
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices, cuda:0"
            f" and cpu! ({func} of {shapes})"
        )

    def execute(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], device: str = "cuda"
    ) -> Any:
        """Computes; draws random numbers of the device from generators of the device."""
        if not _traits(func).draws:
            return func(*args, **kwargs)
        given = self._sees.generator
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
            # To memory of the driver's, at once.
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
        """Operations inside are not those of the code under test."""
        before, self._sees.nothing = self._sees.nothing, True
        try:
            yield
        finally:
            self._sees.nothing = before

    # -- functions of torch ----------------------------------------------------------------------

    def call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A function or method of torch, called by Python."""
        if self._sees.nothing:
            return func(*args, **kwargs)
        if (special := self._special.get(func)) is not None:
            return special(*args, **kwargs)
        wanted = _kind(kwargs.get("device"))
        if wanted == "cuda":
            kwargs["device"] = "cpu"
        pinned = kwargs.pop("pin_memory", False)
        sees = self._sees
        before = sees.wanted, sees.among_gpu, sees.generator
        sees.wanted = wanted or sees.wanted
        sees.generator = kwargs.get("generator") or sees.generator
        sees.among_gpu |= any(self.device_of(tensor) == "cuda" for tensor in _direct(args, kwargs))
        try:
            result = func(*args, **kwargs)
        finally:
            sees.wanted, sees.among_gpu, sees.generator = before
        if pinned:
            self.mark(result, "cpu", pinned=True)
        return result

    def _special_functions(self) -> dict[Any, Any]:
        tensor = torch.Tensor
        special = {
            tensor.device.__get__: lambda t: CUDA if self._on_gpu(t) else tensor.device.__get__(t),
            tensor.is_cuda.__get__: self._on_gpu,
            tensor.is_cpu.__get__: lambda t: t.device.type == "cpu" and not self._on_gpu(t),
            tensor.get_device: lambda t: 0 if self._on_gpu(t) else tensor.get_device(t),
            tensor.to: self._to,
            tensor.cpu: lambda t, **kwargs: self._to(t, "cpu", **kwargs),
            tensor.cuda: lambda t, device=None, **kwargs: self._to(t, "cuda", **kwargs),
            tensor.pin_memory: self._pin,
            tensor.is_pinned: lambda t, *_: bool((m := self.memory_of(t)) and m.pinned),
        }
        special |= {func: partial(self._from_host_data, func) for func in HOST_DATA}
        for func in (tensor.numpy, tensor.__array__, tensor.tolist, tensor.__reduce_ex__):
            special[func] = partial(self._to_python, func)
        special[tensor.__deepcopy__] = self._deepcopy
        return special

    def _on_gpu(self, tensor: torch.Tensor) -> bool:
        return self.device_of(tensor) == "cuda"

    def _to(self, tensor: torch.Tensor, *args: Any, copy: bool = False, **kwargs: Any) -> Any:
        if args and isinstance(args[0], torch.Tensor):
            args = (self.device_of(args[0]), args[0].dtype, *args[1:])
        device, dtype, non_blocking, layout = torch._C._nn._parse_to(*args, **kwargs)
        here = self.device_of(tensor)
        there = device.type if device is not None else here
        options = {"dtype": dtype or tensor.dtype, "memory_format": layout or torch.preserve_format}
        if there == here or there not in ("cpu", "cuda"):
            place = {"device": device} if there != here else {}
            return torch.Tensor.to(tensor, copy=copy, **options, **place)
        with self.unseen():
            result = torch.Tensor.to(tensor, copy=True, **options)
        # Torch copies to pinned memory where it is not to wait.
        self.mark(result, there, pinned=there == "cpu" and non_blocking)
        self.copy(result, tensor, non_blocking)
        return result

    def _pin(self, tensor: torch.Tensor, device: Any = None) -> torch.Tensor:
        if (memory := self.memory_of(tensor)) is not None and memory.pinned:
            return tensor
        self.touched_by_host(tensor, "pin_memory()")
        with self.unseen():
            result = tensor.clone()
        self.mark(result, "cpu", pinned=True)
        return result

    def _from_host_data(self, func: Any, data: Any, *args: Any, **kwargs: Any) -> Any:
        device = kwargs.pop("device", None)
        pinned = kwargs.pop("pin_memory", False)
        if func is torch.as_tensor and args:
            kwargs["dtype"], args = args[0], args[1:]
        if isinstance(data, torch.Tensor) and func is not torch.tensor:
            return self._to(data, device=device, dtype=kwargs.get("dtype"))
        result = func(data, **kwargs)
        if pinned:
            self.mark(result, "cpu", pinned=True)
        return self._to(result, device=device) if device is not None else result

    def _to_python(self, func: Any, tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if not self._on_gpu(tensor):
            # An array can be written to, too; what is done with it later is not seen.
            array = func in (torch.Tensor.numpy, torch.Tensor.__array__)
            self.touched_by_host(tensor, func.__name__, writes=array)
        elif func in (torch.Tensor.numpy, torch.Tensor.__array__):
            self.report("numpy of a tensor of the device")
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        else:
            self.wait(func.__name__)
        with self.unseen():
            return func(tensor, *args, **kwargs)

    def _deepcopy(self, tensor: torch.Tensor, memo: dict[int, Any]) -> Any:
        known = id(tensor) in memo
        with self.unseen():
            result = torch.Tensor.__deepcopy__(tensor, memo)
        if self._on_gpu(tensor) and not known and not self._on_gpu(result):
            source = self.memory_of(tensor)
            assert source is not None
            self.access("deepcopy", [source], [self.mark(result, "cuda")])
        return result


class _Traits(SimpleNamespace):
    """What an operation's schema says of it: creates, draws, copies, views, written."""


@cache
def _traits(func: Any) -> _Traits:
    schema = func._schema
    written = [
        partial(_argument, position, argument.name)
        for position, argument in enumerate(schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    ]
    return _Traits(
        creates=any(argument.name == "device" for argument in schema.arguments),
        draws=torch.Tag.nondeterministic_seeded in func.tags,
        copies=func is aten.copy_.default,
        views=not written and any(r.alias_info is not None for r in schema.returns),
        written=written,
    )


def _argument(position: int, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return args[position] if position < len(args) else kwargs.get(name)


def _kind(device: Any) -> str | None:
    if device is None:
        return None
    return "cuda" if isinstance(device, int) else torch.device(device).type


def _direct(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[torch.Tensor]:
    """Tensors among arguments, or in the first list of them."""
    for value in (*args, *kwargs.values()):
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from (item for item in value if isinstance(item, torch.Tensor))


class _Functions(TorchFunctionMode):
    def __init__(self, gpu: PretendGPU) -> None:
        super().__init__()
        self._gpu = gpu

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return self._gpu.call(func, args, dict(kwargs or {}))


class _Operations(TorchDispatchMode):
    def __init__(self, gpu: PretendGPU) -> None:
        super().__init__()
        self._gpu = gpu

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        with torch._C.DisableTorchFunction():
            if self._gpu._sees.nothing:
                return func(*args, **(kwargs or {}))
            return self._gpu.dispatch(func, args, kwargs or {})


class _Generator(torch.Generator):
    """A generator that says which device it was made for."""

    _device: torch.device

    def __new__(cls, device: Any = "cpu") -> _Generator:
        self = super().__new__(cls, "cpu")
        self._device = torch.device(device)
        return self

    @property
    def device(self) -> torch.device:
        return self._device


class _Autocast(torch.autocast):
    """The GPU's autocast: that of the host."""

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
    """Lets ``torch.cuda`` and ``torch.accelerator`` tell of the pretend GPU."""
    timeline, total = gpu.timeline, 80 * 2**30
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
        "mem_get_info": lambda device=None: (total, total),
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
    """Replaces what asks tensors for their device behind Python's back."""
    patch.setattr(torch, "Generator", _Generator)
    # It takes no other stream than torch's own.
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
    """Takes the pretend GPU along into new threads, and what the host knows to those it asks."""
    run, submit = threading.Thread.run, ThreadPoolExecutor.submit

    def run_with_gpu(thread: threading.Thread) -> None:
        with _Functions(gpu), _Operations(gpu):
            run(thread)

    def submit_with_clock(pool: Any, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        clock = dict(gpu.timeline.host)

        def handed_over() -> Any:
            join(gpu.timeline.host, clock)
            return function(*args, **kwargs)

        return submit(pool, handed_over)

    patch.setattr(threading.Thread, "run", run_with_gpu)
    patch.setattr(ThreadPoolExecutor, "submit", submit_with_clock)


@pytest.fixture
def pretend_gpu() -> Iterator[PretendGPU]:
    """A pretend GPU, ``cuda:0``; at the end nothing may have been wrong on it."""
    gpu = PretendGPU()
    with pytest.MonkeyPatch.context() as patch:
        _patch_cuda(gpu, patch)
        _patch_torch(gpu, patch)
        _patch_threads(gpu, patch)
        with _Functions(gpu), _Operations(gpu):
            yield gpu
    gpu._sees.nothing = True
    assert not gpu.violations, "\n".join(gpu.violations)
