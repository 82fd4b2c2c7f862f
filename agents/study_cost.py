"""What a study will cost, told before it is spent: a short measurement of each kind of training."""

from __future__ import annotations

import heapq
import json
import os
import statistics
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from agents.config import TrainConfig
from agents.launchers import Job, Launcher
from agents.study_job import measure_rate
from agents.study_plan import StudyRun
from envs.errors import UserError
from rlcnn.report import RunResult


@dataclass(frozen=True)
class Cost:
    """What is still to be done.

    Attributes:
        runs: how many.
        steps: agent steps of all of them.
        hours: until the last is done, of training alone: evaluations and films come on top.
        workers: runs at once.
    """

    runs: int
    steps: int
    hours: float
    workers: int

    def __str__(self) -> str:
        """One line for people."""
        return (
            f"{self.runs} run{'s' * (self.runs != 1)}, {self.steps:,} agent steps,"
            f" {self.workers} at once: about {_duration(self.hours)} of training,"
            " evaluations and films not counted"
        )


def kind(config: TrainConfig) -> str:
    """What the speed of a training hangs on, where all else is the study's."""
    return json.dumps([config.encoder, config.encoder_options, config.mode], sort_keys=True)


def measure_rates(runs: Sequence[StudyRun], launcher: Launcher) -> dict[str, float]:
    """Agent steps per second of each kind of training among ``runs``, as its workers run it.

    As many are measured at once as will be at work, some of them twice: they share the machine.

    Raises:
        UserError: a kind cannot be trained; the line says why.
    """
    kinds = {kind(run.config): run for run in reversed(runs)}
    names = sorted(kinds) * -(-launcher.workers // len(kinds))
    chosen = names[: max(len(kinds), launcher.workers)]
    rates: dict[str, list[float]] = {name: [] for name in kinds}
    # Of what goes on from a checkpoint the first weights may be gone; they make it no faster.
    configs = {
        name: replace(run.config, num_threads=launcher.threads, weights="none")
        for name, run in kinds.items()
    }
    jobs = [
        Job(f"{number} {name}", partial(measure_rate, configs[name]), Path(os.devnull))
        for number, name in enumerate(chosen)
    ]
    with closing(launcher.run(jobs, lambda _: None)) as outcomes:
        for outcome in outcomes:
            name = outcome.name.partition(" ")[2]
            if outcome.state != "done":
                raise UserError(f'--arms "{kinds[name].arm}" cannot be trained: {outcome.reason}')
            rates[name].append(float(outcome.value))
    return {name: statistics.mean(values) for name, values in rates.items()}


def estimate(
    runs: Sequence[StudyRun],
    steps_left: Sequence[int],
    rates: Mapping[str, float],
    workers: int,
) -> Cost:
    """What ``runs`` cost, each begun in its turn by the first worker that is free."""
    free = [0.0] * workers
    for run, steps in zip(runs, steps_left, strict=True):
        heapq.heapreplace(free, free[0] + steps / rates[kind(run.config)])
    return Cost(len(runs), sum(steps_left), max(free) / 3600, workers)


def known_rates(
    document: dict[str, Any], runs: Sequence[StudyRun], launcher: Launcher, console: Console
) -> dict[str, float]:
    """Of each kind of training its speed, measured now where it was not when the study began.

    Args:
        document: what ``study.json`` says, or nothing.
        runs: what is to be done.
        launcher: where.
        console: is told that speeds are measured.

    Raises:
        UserError: as :func:`measure_rates`.
    """
    threads = str(launcher.threads)
    known: dict[str, float] = dict((document.get("rates") or {}).get(threads, {}))
    unknown = [run for run in runs if kind(run.config) not in known]
    if unknown:
        kinds = len({kind(run.config) for run in unknown})
        console.print(f"measuring the speed of {kinds} kind{'s' * (kinds != 1)} of training")
        known |= measure_rates(unknown, launcher)
    return known


def tell_cost(
    to_do: Sequence[tuple[StudyRun, RunResult]],
    rates: dict[str, float],
    launcher: Launcher,
    console: Console,
) -> Cost:
    """Tells, and returns, what the runs still cost, by the speed of each kind of training."""
    told: dict[str, str] = {}
    for run, _ in to_do:
        told.setdefault(run.arm, f"{rates[kind(run.config)]:,.0f} steps/s")
    for arm, rate in told.items():
        console.print(f"  {arm}: {rate}")
    left = [max(0, run.config.total_steps - result.steps) for run, result in to_do]
    cost = estimate([run for run, _ in to_do], left, rates, launcher.workers)
    console.print(f"to do: {cost}")
    return cost


def _duration(hours: float) -> str:
    return f"{hours:.1f} hours" if hours >= 1 else f"{60 * hours:.1f} minutes"
