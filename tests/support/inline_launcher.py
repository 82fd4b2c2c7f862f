"""A launcher that does jobs one after another in this process."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from agents.launchers.local import Job, Launcher, Outcome, Tick, perform


class InlineLauncher(Launcher):
    """A launcher without processes, which records finished jobs.

    Args:
        interrupt_after: number of jobs before a Ctrl-C; None for no Ctrl-C.
    """

    workers, threads = 1, 1

    def __init__(self, interrupt_after: int | None = None) -> None:
        self.done: list[str] = []
        self._interrupt_after = interrupt_after

    def run(self, jobs: Sequence[Job], tick: Tick) -> Generator[Outcome, None, None]:
        for job in jobs:
            if len(self.done) == self._interrupt_after:
                raise KeyboardInterrupt
            tick([job.name])
            outcome = Outcome(job.name, *perform(job.task))
            self.done.append(job.name)
            yield outcome
