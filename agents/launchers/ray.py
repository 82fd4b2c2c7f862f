"""A launcher for a Ray cluster whose nodes share the study's file system."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any

from agents.launchers.local import TICK_SECONDS, Job, Launcher, Outcome, State, Tick, perform
from envs.errors import UserError, first_line

RESUBMISSIONS = 10
"""Times that a job is submitted again after its node was lost."""


class RayLauncher(Launcher):
    """Runs jobs as tasks of a Ray cluster.

    It submits a job again if its node dies; a training then resumes from its last checkpoint. So
    all nodes need the study's directory under the same path, and this package.

    Args:
        address: of the cluster, as for ``ray.init``; "auto" finds the one of this machine.
        cpus: processor cores of each job.
        gpus: GPUs of each job; 0.25 lets four jobs share one.
        jobs: number of jobs, which limits the workers.
        threads: CPU threads of each job; 0 means ``cpus``.
        notify: called with a line for each job that was lost and submitted again.

    Raises:
        UserError: Ray is not installed, no cluster answers, or no node has room for a job.
    """

    def __init__(
        self,
        address: str,
        cpus: int,
        gpus: float,
        jobs: int,
        threads: int = 0,
        notify: Callable[[str], None] = print,
    ) -> None:
        if cpus < 1 or gpus < 0:
            raise UserError(
                f"--ray-cpus {cpus} must be at least 1, and --ray-gpus {gpus} at least 0"
            )
        try:
            import ray
        except ImportError as error:
            raise UserError(
                '--launcher ray needs Ray, which is not installed: pip install "rlcnn[ray]"'
            ) from error
        self._ray, self._notify = ray, notify
        self._running: dict[Any, Job] = {}
        self._asked_to_stop: set[str] = set()
        if not ray.is_initialized():
            try:
                ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
            except (ConnectionError, ValueError, RuntimeError) as error:
                reason = first_line(error)
                message = f'--ray-address "{address}": no cluster answers: {reason}'
                raise UserError(message) from error
        self.workers = min(jobs, self._places(cpus, gpus))
        self.threads = threads or cpus
        # This class submits lost jobs again, not Ray, so that the user gets a line.
        self._submit = (
            ray.remote(_serve).options(num_cpus=cpus, num_gpus=gpus, max_retries=0).remote
        )

    def run(self, jobs: Iterable[Job], tick: Tick) -> Generator[Outcome, None, None]:
        """See :class:`~agents.launchers.Launcher`. Ray gets a sequence of jobs all at once."""
        ray = self._ray
        losses: Counter[str] = Counter()
        waiting, room = iter(jobs), self.workers
        if isinstance(jobs, Sequence):
            room = len(jobs)
        running = self._running = {}
        try:
            while True:
                while len(running) < room and (job := next(waiting, None)) is not None:
                    running[self._submit(job)] = job
                if not running:
                    break
                tick([job.name for job in running.values()])
                ready, _ = ray.wait(list(running), num_returns=1, timeout=TICK_SECONDS)
                for reference in ready:
                    job = running.pop(reference)
                    try:
                        yield Outcome(job.name, *ray.get(reference))
                    except ray.exceptions.RayTaskError as error:
                        # Not an error of the job's task, but such as a disk missing on the node.
                        reason = (str(error.cause).strip() or "failed").splitlines()[0]
                        yield Outcome(job.name, "failed", reason=reason)
                    except ray.exceptions.RayError as error:
                        if job.name in self._asked_to_stop:
                            yield Outcome(job.name, "stopped")
                            continue
                        losses[job.name] += 1
                        reason = f"lost with its worker: {type(error).__name__}"
                        if losses[job.name] > RESUBMISSIONS:
                            yield Outcome(job.name, "failed", reason=f"{reason}, again and again")
                            continue
                        self._notify(f"{job.name}: {reason}; submitted again")
                        running[self._submit(job)] = job
        finally:
            self._stop(list(running))

    def stop(self, name: str) -> None:
        """See :class:`~agents.launchers.Launcher`."""
        self._asked_to_stop.add(name)
        for reference, job in self._running.items():
            if job.name == name:
                # This raises Ctrl-C in the worker; a training then saves a checkpoint.
                self._ray.cancel(reference, force=False)

    def _stop(self, references: list[Any]) -> None:
        """Asks jobs to stop, and waits for them."""
        ray = self._ray
        for reference in references:
            # This raises Ctrl-C in the worker; a training then saves a checkpoint.
            ray.cancel(reference, force=False)
        try:
            if references:
                ray.wait(references, num_returns=len(references))
        except KeyboardInterrupt:
            for reference in references:
                ray.cancel(reference, force=True)
            raise

    def _places(self, cpus: int, gpus: float) -> int:
        """The number of jobs for which the cluster has room now."""
        places = 0
        for node in self._ray.nodes():
            resources = node["Resources"] if node["Alive"] else {}
            fitting = resources.get("CPU", 0) // cpus
            if gpus:
                fitting = min(fitting, resources.get("GPU", 0) // gpus)
            places += int(fitting)
        if not places:
            raise UserError(
                f"no node of the Ray cluster has {cpus} CPUs and {gpus:g} GPUs for a run:"
                " lower --ray-cpus or --ray-gpus"
            )
        return places


def _serve(job: Job) -> tuple[State, Any, str]:
    with (
        open(job.log, "a", buffering=1) as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
    ):
        return perform(job.task)
