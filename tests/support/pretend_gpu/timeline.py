"""Streams, events and threads of the host: vector clocks say which of them knows what is done."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch.multiprocessing.reductions import StorageWeakRef

if TYPE_CHECKING:
    from support.pretend_gpu.graph import CUDAGraph

Clock = dict[int, int]
"""For each stream, by its number, how many of its operations are known to be done."""

Report = Callable[[str], None]


def join(clock: Clock, other: Clock) -> None:
    """Adds everything that another clock knows."""
    for stream, count in list(other.items()):
        clock[stream] = max(clock.get(stream, 0), count)


def covers(clock: Clock, needed: Clock) -> bool:
    """Whether a clock knows everything that another one knows."""
    return all(clock.get(stream, 0) >= count for stream, count in needed.items())


class Timeline:
    """The streams, and what each thread of the host has waited for.

    Attributes:
        default: the stream in which a thread starts.
    """

    def __init__(self) -> None:
        self.numbers = itertools.count()
        self.streams: list[Stream] = []
        self._thread = threading.local()
        self.default = Stream(self)

    @property
    def current(self) -> Stream:
        """The stream of this thread; can be set."""
        stream: Stream = getattr(self._thread, "stream", self.default)
        return stream

    @current.setter
    def current(self, stream: Stream) -> None:
        self._thread.stream = stream

    @property
    def host(self) -> Clock:
        """What this thread knows to be done."""
        if not hasattr(self._thread, "clock"):
            self._thread.clock = {}
        clock: Clock = self._thread.clock
        return clock

    def synchronize(self, device: Any = None) -> None:
        """``torch.cuda.synchronize``."""
        self.current.refuse_in_capture("torch.cuda.synchronize()")
        for stream in list(self.streams):
            join(self.host, stream.clock)


class Stream:
    """``torch.cuda.Stream``.

    Attributes:
        clock: what is done before its next operation begins.
        capture: the graph that records its operations, if one does.
    """

    def __init__(self, timeline: Timeline, device: Any = None, priority: int = 0) -> None:
        self.timeline, self.device, self.priority = timeline, device, priority
        self.number = next(timeline.numbers)
        self.clock: Clock = {}
        self.capture: CUDAGraph | None = None
        timeline.streams.append(self)

    def __repr__(self) -> str:
        return f"stream {self.number}" if self.number else "the default stream"

    def advance(self) -> int:
        """Queues one more operation of the host and returns its number."""
        join(self.clock, self.timeline.host)
        self.clock[self.number] = self.clock.get(self.number, 0) + 1
        return self.clock[self.number]

    def is_capturing(self) -> bool:
        return self.capture is not None

    def refuse_in_capture(self, what: str) -> None:
        """Raises what CUDA raises, and spoils the capture, if one is under way."""
        if self.capture is not None:
            self.capture.spoil(what)

    def wait_stream(self, other: Stream) -> None:
        join(self.clock, other.clock)

    def wait_event(self, event: Event) -> None:
        join(self.clock, event.clock)

    def record_event(self, event: Event | None = None) -> Event:
        event = event or Event(self.timeline)
        event.record(self)
        return event

    def synchronize(self) -> None:
        self.refuse_in_capture("Stream.synchronize()")
        join(self.timeline.host, self.clock)

    def query(self) -> bool:
        return covers(self.timeline.host, self.clock)


class Event:
    """``torch.cuda.Event``."""

    def __init__(self, timeline: Timeline, *args: Any, **kwargs: Any) -> None:
        self._timeline = timeline
        self.clock: Clock = {}

    def record(self, stream: Stream | None = None) -> None:
        self.clock = dict((stream or self._timeline.current).clock)

    def wait(self, stream: Stream | None = None) -> None:
        (stream or self._timeline.current).wait_event(self)

    def synchronize(self) -> None:
        self._timeline.current.refuse_in_capture("Event.synchronize()")
        join(self._timeline.host, self.clock)

    def query(self) -> bool:
        return covers(self._timeline.host, self.clock)

    def elapsed_time(self, end: Event) -> float:
        return 1.0


@dataclass(eq=False)
class Memory:
    """Who wrote and read one storage last, and which copies of it are under way.

    Attributes:
        storage: says whether the storage still exists.
        device: "cuda" or "cpu".
        pinned: whether memory of the host is pinned.
        written: the stream and the number of the operation that wrote last.
        read: the operations that have read since.
        arriving: the clock that a copy from the device ends at; None without such a copy.
        leaving: the same for a copy to the device.
    """

    storage: StorageWeakRef
    device: str = "cpu"
    pinned: bool = False
    written: Clock = field(default_factory=dict)
    read: Clock = field(default_factory=dict)
    arriving: Clock | None = None
    leaving: Clock | None = None

    def read_by(self, stream: Stream, number: int, what: str, report: Report) -> None:
        """A stream reads."""
        if not covers(stream.clock, self.written):
            report(f"race: {what} reads in {stream} what {_names(self.written)} writes")
        self.read[stream.number] = number

    def written_by(self, stream: Stream, number: int, what: str, report: Report) -> None:
        """A stream writes."""
        if not covers(stream.clock, self.written):
            report(f"race: {what} writes in {stream} what {_names(self.written)} writes")
        if not covers(stream.clock, self.read):
            report(f"race: {what} writes in {stream} what {_names(self.read)} reads")
        self.written, self.read = {stream.number: number}, {}

    def touched_by_host(self, known: Clock, what: str, report: Report, writes: bool) -> None:
        """The host reads, or writes, with what it knows to be done."""
        if self.arriving is not None:
            if not covers(known, self.arriving):
                report(f"too early: {what} on the host before a copy from the device is done")
            self.arriving = None
        if self.leaving is not None and writes:
            if not covers(known, self.leaving):
                report(f"too early: {what} on the host before a copy to the device is done")
            self.leaving = None


def _names(clock: Clock) -> str:
    return ", ".join(f"stream {number}" for number in clock)
