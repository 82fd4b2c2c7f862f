"""Rates, measured one after the other within a time limit, each in its own process."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from agents.measure.learners import Learner
from agents.measure.workers import Facts, Worker
from envs.errors import first_line

Status = Literal["measured", "skipped", "failed", "killed", "not measured on a CPU"]

# Seconds: a shorter measurement is not worth a process.
_LEAST = 0.2
# Planned share of the time left, because durations are estimates.
_PLANNED = 0.7
# A process is killed after this multiple of its planned seconds, but never before _PATIENCE.
_OVERRUN, _PATIENCE = 2.0, 20.0


@dataclass(frozen=True)
class Row:
    """One rate to measure.

    Attributes:
        make: makes the learner in its own process; must be picklable.
        threads: torch's CPU threads in that process.
        unit: unit of work that the rate counts.
        gpu_only: whether the row makes sense on a GPU only.
        bounds: earlier rows that limit this row's rate, and how many of their units one unit of
            this row takes.
        ours: earlier rows; the speedup is the fastest of them divided by this row's rate.
    """

    name: str
    make: Callable[[], Learner]
    threads: int
    device: str
    unit: str = "steps"
    gpu_only: bool = False
    bounds: Mapping[str, float] = field(default_factory=dict)
    ours: tuple[str, ...] = ()

    @property
    def possible(self) -> bool:
        """Whether the device can run it."""
        return not (self.gpu_only and self.device == "cpu")


@dataclass(frozen=True)
class RowResult:
    """The result of a row; figures that were not measured are None.

    Attributes:
        status: whether it was measured, or why not.
        reason: one line about a row that was skipped, failed or killed.
        rate: units per second.
        set_up_seconds: from the start of the process to the end of its warm-up; not in the rate.
        stretch_seconds: duration of the measurement.
        bound: the rate that the rows in ``bounds`` allow, in this row's units.
        share: ``rate / bound``.
        speedup: the fastest of the rows in ``ours``, divided by ``rate``.
        facts: memory and other costs.
    """

    name: str
    status: Status
    reason: str = ""
    unit: str = "steps"
    rate: float | None = None
    set_up_seconds: float | None = None
    stretch_seconds: float | None = None
    bound: float | None = None
    share: float | None = None
    speedup: float | None = None
    facts: Facts | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, with the facts among the other values."""
        values = asdict(self)
        return values | (values.pop("facts") or {})

    def __str__(self) -> str:
        """One line for people."""
        if self.rate is None:
            return f"{self.name}: {self.status}{self.reason and f' ({self.reason})'}"
        parts = [f"{self.rate:,.0f} {self.unit}/s"]
        if self.share is not None:
            parts.append(f"{self.share:.2f} of the bound of {self.bound:,.0f}")
        if self.speedup is not None:
            parts.append(f"ours is {self.speedup:.1f} times as fast")
        if self.facts and self.facts.peak_device_bytes:
            parts.append(f"{self.facts.peak_device_bytes / 1e6:,.0f} MB on the GPU")
        parts.append(f"{self.stretch_seconds:.1f} s after {self.set_up_seconds:.1f} s of set-up")
        return f"{self.name}: {', '.join(parts)}"


def measure_rows(
    rows: Sequence[Row],
    deadline: float,
    done: Callable[[RowResult], None],
    stretch: float = 20.0,
    patience: float = _PATIENCE,
) -> None:
    """Measures row after row; a failure is recorded, and the next row follows.

    The remaining rows share the remaining time equally, so a quick row leaves more to later ones. A
    row is skipped if the remaining time is shorter than the shortest set-up so far.

    Args:
        rows: the most important first.
        deadline: on :func:`time.monotonic`'s clock; no process runs longer.
        done: receives each result at once.
        stretch: approximate seconds of the longest measurement; a longer one adds little.
        patience: seconds that each process has at least before it is killed.
    """
    measured: dict[str, float] = {}
    set_ups: list[float] = []
    for number, row in enumerate(rows):
        began = time.monotonic()
        left = deadline - began
        needed = min(set_ups, default=0.0) + _LEAST
        if not row.possible:
            result = RowResult(row.name, "not measured on a CPU")
        elif left < needed:
            reason = f"it needs about {needed:.1f} s, and {max(0.0, left):.1f} s are left"
            result = RowResult(row.name, "skipped", reason)
        else:
            share = left / sum(other.possible for other in rows[number:])
            share = min(left, max(share, needed))
            until = min(deadline, began + max(patience, _OVERRUN * share))
            result = _measure(row, began + share, until, stretch)
            rate, set_up = result.rate, result.set_up_seconds
            if rate is not None and set_up is not None:
                # Beside the rows that it is compared with, if they were measured.
                if row.bounds and row.bounds.keys() <= measured.keys():
                    bound = min(measured[name] / units for name, units in row.bounds.items())
                    result = replace(result, bound=bound, share=rate / bound)
                if ours := [measured[name] for name in row.ours if name in measured]:
                    result = replace(result, speedup=max(ours) / rate)
                measured[row.name] = rate
                set_ups.append(set_up)
        done(result)


def _measure(row: Row, planned_end: float, until: float, longest: float) -> RowResult:
    began = time.monotonic()
    try:
        with closing(Worker(row.make, row.threads, row.device, until)) as worker:
            # A short first measurement captures graphs, starts threads, and predicts how much
            # work fits into the second.
            worker.measure(_LEAST)
            warm = time.monotonic()
            left = _PLANNED * (planned_end - warm)
            rate = worker.measure(min(longest, max(_LEAST, left)))
            stretch = time.monotonic() - warm
            return RowResult(
                row.name,
                "measured",
                unit=row.unit,
                rate=rate,
                set_up_seconds=warm - began,
                stretch_seconds=stretch,
                facts=worker.facts(),
            )
    except TimeoutError:
        return RowResult(row.name, "killed", f"not done after {time.monotonic() - began:.1f} s")
    except Exception as error:
        # The rows after it can still be measured.
        return RowResult(row.name, "failed", first_line(error))
