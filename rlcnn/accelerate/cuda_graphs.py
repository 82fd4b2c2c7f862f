"""A function of tensors, captured as one CUDA graph and replayed, or run uncaptured."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

import torch
from torch import nn

from envs.errors import UserError, first_line

R = TypeVar("R")

WARM_UP_CALLS = 3

_log = logging.getLogger(__name__)


class CaptureInvalidatedError(RuntimeError):
    """CUDA refused an operation during a capture, and with it the whole capture."""


class CudaRecorder:
    """Captures functions without arguments, whose tensors stay in place, as CUDA graphs.

    See torch's notes on CUDA semantics, "CUDA Graphs". It captures on its own stream: cuBLAS keeps
    one workspace for each stream, which a graph continues to use, and two graphs that run at the
    same time must not share it.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)

    def warm_up(self, function: Callable[[], R]) -> R:
        """Runs the function as a capture will: on its stream, in order with the caller's stream."""
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            result = function()
        current.wait_stream(self._stream)
        return result

    def capture(
        self, function: Callable[[], R], generators: Iterable[torch.Generator]
    ) -> tuple[Callable[[], object], R]:
        """Captures the function without computing anything.

        The result is a replay of the function, on any stream but one at a time, and the tensors to
        which each replay writes its results. ``generators`` are those that it draws from beside
        torch's default one.

        Raises:
            CaptureInvalidatedError: the device cannot continue.
            Exception: what the function raised; the device is fine.
        """
        failure: Exception | None = None
        current = torch.cuda.current_stream(self._device)
        # The outer stream context: an invalidated capture raises before torch leaves its own.
        with torch.cuda.device(self._device), torch.cuda.stream(current):
            graph = torch.cuda.CUDAGraph()
            for generator in generators:
                graph.register_generator_state(generator)
            try:
                # Other threads, such as a tracker's, may call CUDA meanwhile.
                with torch.cuda.graph(
                    graph, stream=self._stream, capture_error_mode="thread_local"
                ):
                    try:
                        result = function()
                    except Exception as error:
                        failure = error
            except Exception as error:
                raise CaptureInvalidatedError(first_line(failure or error)) from (failure or error)
        if failure is not None:
            raise failure
        return graph.replay, result


def make_recorder(device: torch.device, wanted: bool = True) -> CudaRecorder | None:
    """A recorder for a device; None if it is not wanted, or the device has no graphs."""
    return CudaRecorder(device) if wanted and device.type == "cuda" else None


class Graphed(Generic[R]):
    """A function that is captured as a graph after a few calls, and replayed from then on.

    The first calls run it uncaptured. They choose kernels and create optimiser state, which must
    exist before a capture. A capture computes nothing, so every call takes effect exactly once.

    Arguments that are not tensors keep their value of the capture. If the function raises during
    the capture, one line reports it and the function runs uncaptured from then on.

    A call returns the tensors that the next call overwrites. While a capture is under way, no other
    thread may draw random numbers on the device; :meth:`ready` says beforehand whether a call would
    capture.

    Args:
        function: takes tensors whose shapes are those of its first call, and never waits for the
            device.
        name: in messages.
        device: where it computes.
        recorder: captures it; None runs it uncaptured.
        reads: tensors beside its arguments that may be replaced by others, or may begin or cease to
            require a gradient. See :meth:`refresh`.
        generators: that it draws from beside torch's default generator.
    """

    def __init__(
        self,
        function: Callable[..., R],
        name: str,
        device: torch.device,
        recorder: CudaRecorder | None,
        *,
        reads: Callable[[], Iterable[torch.Tensor]] = tuple,
        generators: Sequence[torch.Generator] = (),
    ) -> None:
        self._function, self._name, self._device = function, name, device
        self._recorder = recorder
        self._reads, self._generators = reads, generators
        self._calls = 0
        self._inputs: list[torch.Tensor] = []
        self._replay: Callable[[], object] | None = None
        self._captured_reads: list[tuple[int, bool]] = []
        self._outputs: R

    @property
    def captured(self) -> bool:
        """Whether calls with the same shapes as before capture nothing any more."""
        return self._recorder is None or self._replay is not None

    def ready(self, *inputs: torch.Tensor) -> bool:
        """Whether a call with such inputs would capture nothing, nor warm up for a capture."""
        self.refresh()
        return self._recorder is None or (self._replay is not None and self._fits(inputs))

    def refresh(self) -> None:
        """Drops the graph if one of the tensors that it reads was replaced.

        Call it once before a series of calls: looking at every tensor takes longer than a replay.
        """
        if self._replay is not None and self._captured_reads != self._state_of_reads():
            self._replay, self._calls = None, 0

    def __call__(self, *inputs: torch.Tensor) -> R:
        """What the function returns, for inputs on its device, or on the host, best in pinned
        memory.
        """
        if self._recorder is None:
            return self._function(*(given.to(self._device, non_blocking=True) for given in inputs))
        if not self._fits(inputs):
            self._replay, self._calls = None, 0
            self._inputs = [torch.empty_like(given, device=self._device) for given in inputs]
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given, non_blocking=True)
        if self._replay is None:
            if self._calls < WARM_UP_CALLS:
                self._calls += 1
                return self._recorder.warm_up(self._run)
            try:
                self._replay, self._outputs = self._recorder.capture(self._run, self._generators)
            except CaptureInvalidatedError as error:
                raise UserError(
                    f"CUDA refused to capture the {self._name} as a graph: {error}. Run again with"
                    " --cuda-graphs off"
                ) from error
            except Exception as error:
                # An uncaptured call shows whether the function itself is to blame.
                result = self._run()
                _log.warning("the %s runs without a CUDA graph: %s", self._name, first_line(error))
                self._recorder, self._inputs = None, []
                return result
            self._captured_reads = self._state_of_reads()
        self._replay()
        return self._outputs

    def _run(self) -> R:
        return self._function(*self._inputs)

    def _fits(self, inputs: Sequence[torch.Tensor]) -> bool:
        return len(inputs) == len(self._inputs) and all(
            given.shape == own.shape and given.dtype == own.dtype
            for own, given in zip(self._inputs, inputs, strict=True)
        )

    def _state_of_reads(self) -> list[tuple[int, bool]]:
        # A gradient that begins to flow is other code, too.
        return [(read.data_ptr(), read.requires_grad) for read in self._reads()]


def parameters_and_buffers(network: nn.Module) -> list[torch.Tensor]:
    """All tensors that a network computes with."""
    return [*network.parameters(), *network.buffers()]
