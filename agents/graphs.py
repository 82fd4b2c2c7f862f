"""A function of tensors captured as one CUDA graph and replayed, or run as it stands."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import nn

R = TypeVar("R")

WARM_UP_CALLS = 3

_log = logging.getLogger(__name__)


class Recorder(Protocol):
    """Captures functions that take nothing and compute in tensors that stay where they are."""

    device: torch.device

    def warm_up(self, function: Callable[[], R]) -> R:
        """What the function returns, run as it will be captured."""

    def capture(
        self, function: Callable[[], R], generators: Iterable[torch.Generator]
    ) -> tuple[Callable[[], object], R]:
        """What does all that the function does once more, and the tensors it leaves results in.

        Nothing is computed yet. Random numbers are drawn from ``generators``.
        """


class CudaRecorder:
    """A :class:`Recorder` of CUDA graphs (torch's notes on CUDA semantics, "CUDA Graphs").

    It captures on a stream of its own: cuBLAS keeps one workspace for each stream, which a graph
    goes on using, and two graphs that run beside each other must not share it.

    Args:
        device: the GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device)

    def warm_up(self, function: Callable[[], R]) -> R:
        """Runs on the stream of the capture, in order with the caller's."""
        current = torch.cuda.current_stream(self.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            result = function()
        current.wait_stream(self._stream)
        return result

    def capture(
        self, function: Callable[[], R], generators: Iterable[torch.Generator]
    ) -> tuple[Callable[[], object], R]:
        """A graph to be replayed on any stream, one replay at a time."""
        with torch.cuda.device(self.device):
            graph = torch.cuda.CUDAGraph()
            for generator in generators:
                # Takes memory for its place on the current device.
                graph.register_generator_state(generator)
            # Trackers and other libraries may call CUDA in threads of their own meanwhile.
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                result = function()
        return graph.replay, result


def make_recorder(device: torch.device) -> Recorder | None:
    """A recorder for what is computed on a device; None where there are no graphs."""
    return CudaRecorder(device) if device.type == "cuda" else None


class Graphed(Generic[R]):
    """A function that is captured as a graph after a few calls, and replayed from then on.

    The first calls run it as it stands, which warms up what a capture must find warm: kernels
    chosen, optimiser state made. They count like any other. A capture itself computes nothing, so
    a function that changes what it reads changes it once for each call.

    Whatever is not a tensor is taken as it was at the capture. Where that cannot be captured, one
    line says so and the function goes on running as it stands.

    A call returns the tensors that the next call will write to. While a capture is under way, no
    other thread may draw random numbers on the device: :meth:`ready` tells beforehand.

    Args:
        function: of tensors, whose shapes are those of the first call; it never waits for the
            device.
        what: what to call it when telling of it.
        recorder: None runs the function as it stands.
        reads: the tensors that it uses beside its arguments. If another takes the place of one of
            them, or one begins or ceases to require a gradient, it is captured anew.
        generators: what it draws from beside torch's default generator.
    """

    def __init__(
        self,
        function: Callable[..., R],
        what: str,
        recorder: Recorder | None,
        *,
        reads: Callable[[], Iterable[torch.Tensor]] = tuple,
        generators: Sequence[torch.Generator] = (),
    ) -> None:
        self._function, self._what, self._recorder = function, what, recorder
        self._reads, self._generators = reads, generators
        self._key: tuple[Any, ...] | None = None
        self._calls = 0
        self._inputs: list[torch.Tensor] = []
        self._replay: Callable[[], object] | None = None
        self._outputs: R

    def ready(self, *inputs: torch.Tensor) -> bool:
        """Whether a call with such inputs would capture nothing, nor come nearer to it."""
        if self._recorder is None:
            return True
        return self._replay is not None and self._key == self._key_of(inputs)

    def __call__(self, *inputs: torch.Tensor) -> R:
        """What the function returns.

        Args:
            inputs: on the function's device, or in pinned memory of the host.
        """
        if self._recorder is None:
            return self._function(*inputs)
        key = self._key_of(inputs)
        if key != self._key:
            self._begin_anew(key, inputs, self._recorder.device)
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given, non_blocking=True)
        if self._replay is None:
            if self._calls < WARM_UP_CALLS:
                self._calls += 1
                return self._recorder.warm_up(self._run)
            try:
                self._replay, self._outputs = self._recorder.capture(self._run, self._generators)
            except Exception as error:
                # Whatever it is, a call as it stands shows whether the function is to blame.
                result = self._run()
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                _log.warning("the %s runs without a CUDA graph: %s", self._what, reason)
                self._recorder, self._inputs = None, []
                return result
        self._replay()
        return self._outputs

    def _run(self) -> R:
        return self._function(*self._inputs)

    def _key_of(self, inputs: Sequence[torch.Tensor]) -> tuple[Any, ...]:
        shapes = tuple((given.shape, given.dtype) for given in inputs)
        # A gradient that begins to flow is other code, too.
        reads = tuple((read.data_ptr(), read.requires_grad) for read in self._reads())
        return shapes, reads

    def _begin_anew(
        self, key: tuple[Any, ...], inputs: Sequence[torch.Tensor], device: torch.device
    ) -> None:
        self._replay, self._calls, self._key = None, 0, key
        self._inputs = [torch.empty_like(given, device=device) for given in inputs]


def held_by(network: nn.Module) -> list[torch.Tensor]:
    """Its parameters and buffers, looked up once: a network is asked often what it reads."""
    return [*network.parameters(), *network.buffers()]


def can_capture_steps(optimizer: torch.optim.Optimizer) -> bool:
    """Whether a step of this optimiser can be part of a graph: its counts lie on the device."""
    return all(group.get("fused") and "capturable" in group for group in optimizer.param_groups)


def keep_rates_on_device(optimizer: torch.optim.Optimizer) -> None:
    """Makes tensors of the learning rates, which a captured step reads anew each time.

    Once they are, they are to be filled in place.
    """
    for group in optimizer.param_groups:
        device = group["params"][0].device
        # Loaded from a file, a rate may be a tensor of the host.
        group["lr"] = torch.as_tensor(group["lr"], dtype=torch.float32, device=device)


def tensors_of(optimizer: torch.optim.Optimizer) -> Iterator[torch.Tensor]:
    """Everything that a captured step uses: parameters, the state kept for them, rates."""
    for group in optimizer.param_groups:
        yield group["lr"]
        for parameter in group["params"]:
            yield parameter
            # Not by [], which would make an entry.
            yield from optimizer.state.get(parameter, {}).values()


@contextmanager
def steps_capturable(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Within, steps may be captured. Torch warns of steps that may be and are not."""
    if not (torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()):
        yield
        return
    for group in optimizer.param_groups:
        group["capturable"] = True
    try:
        yield
    finally:
        for group in optimizer.param_groups:
            group["capturable"] = False
