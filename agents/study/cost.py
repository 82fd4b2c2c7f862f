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
from agents.launchers.local import Job, Launcher
from agents.study.plan import StudyRun
from agents.study.speed import Speed, measure_speed
from envs.errors import UserError
from rlcnn.report import RunResult

MEASURED_GAMES = 3
"""Games in which an arm is measured; in others it is taken to be as fast as in these."""


@dataclass(frozen=True)
class Cost:
    """What is still to be done.

    Attributes:
        runs: how many.
        steps: agent steps of all of them.
        hours: until the last is done; films come on top.
        judging: the share of that in which agents are judged, by games as long as random ones.
        workers: runs at once.
    """

    runs: int
    steps: int
    hours: float
    judging: float
    workers: int

    def __str__(self) -> str:
        """One line for people."""
        return (
            f"{self.runs} run{'s' * (self.runs != 1)}, {self.steps:,} agent steps,"
            f" {self.workers} at once: about {_duration(self.hours)}, of which"
            f" {100 * self.judging:.0f}% evaluations if games last as long as at random; films not"
            " counted"
        )


def kind(config: TrainConfig) -> str:
    """What the speed of a training hangs on, where all else is the study's."""
    return f"{config.env} {_network(config)}"


def _network(config: TrainConfig) -> str:
    return json.dumps([config.encoder, config.encoder_options, config.mode], sort_keys=True)


def measure_speeds(runs: Sequence[StudyRun], launcher: Launcher) -> dict[str, Speed]:
    """The speed of each kind of training among ``runs``, as its workers run it.

    As many are measured at once as will be at work, some of them twice: they share the machine. Of
    many games a network is measured in the first few.

    Raises:
        UserError: a kind cannot be trained; the line says why.
    """
    networks: dict[str, dict[str, StudyRun]] = {}
    for run in runs:
        games = networks.setdefault(_network(run.config), {})
        if len(games) < MEASURED_GAMES:
            games.setdefault(run.config.env, run)
    kinds = {kind(run.config): run for games in networks.values() for run in games.values()}
    names = sorted(kinds) * -(-launcher.workers // len(kinds))
    chosen = names[: max(len(kinds), launcher.workers)]
    speeds: dict[str, list[Speed]] = {name: [] for name in kinds}
    # Of what goes on from a checkpoint the first weights may be gone; they make it no faster.
    configs = {
        name: replace(run.config, num_threads=launcher.threads, weights="none")
        for name, run in kinds.items()
    }
    jobs = [
        Job(f"{number} {name}", partial(measure_speed, configs[name]), Path(os.devnull))
        for number, name in enumerate(chosen)
    ]
    with closing(launcher.run(jobs, lambda _: None)) as outcomes:
        for outcome in outcomes:
            name = outcome.name.partition(" ")[2]
            if outcome.state != "done":
                raise UserError(f'--arms "{kinds[name].arm}" cannot be trained: {outcome.reason}')
            speeds[name].append(outcome.value)
    measured = {name: _mean(values) for name, values in speeds.items()}
    for run in runs:
        games = networks[_network(run.config)]
        if kind(run.config) not in measured:
            alike = [measured[kind(other.config)] for other in games.values()]
            measured[kind(run.config)] = _mean(alike)
    return measured


def _mean(speeds: Sequence[Speed]) -> Speed:
    return Speed(
        statistics.mean(speed.training for speed in speeds),
        statistics.mean(speed.judging for speed in speeds),
        statistics.mean(speed.game for speed in speeds),
    )


def estimate(
    runs: Sequence[StudyRun],
    steps_done: Sequence[int],
    speeds: Mapping[str, Speed],
    workers: int,
) -> Cost:
    """What ``runs`` cost, each begun in its turn by the first worker that is free."""
    free = [0.0] * workers
    seconds = judging = 0.0
    for run, done in zip(runs, steps_done, strict=True):
        parts = speeds[kind(run.config)].seconds(run.config, done)
        heapq.heapreplace(free, free[0] + sum(parts))
        seconds, judging = seconds + sum(parts), judging + parts[1]
    steps = sum(
        max(0, run.config.total_steps - done) for run, done in zip(runs, steps_done, strict=True)
    )
    return Cost(len(runs), steps, max(free) / 3600, judging / seconds if seconds else 0.0, workers)


def known_speeds(
    document: dict[str, Any], runs: Sequence[StudyRun], launcher: Launcher, console: Console
) -> dict[str, Speed]:
    """Of each kind of training its speed, measured now where it was not when the study began.

    Args:
        document: what ``study.json`` says, or nothing.
        runs: what is to be done.
        launcher: where.
        console: is told that speeds are measured.

    Raises:
        UserError: as :func:`measure_speeds`.
    """
    kept = (document.get("speeds") or {}).get(str(launcher.threads), {})
    read = {name: Speed.from_json(value) for name, value in kept.items()}
    known = {name: speed for name, speed in read.items() if speed is not None}
    unknown = [run for run in runs if kind(run.config) not in known]
    if unknown:
        kinds = len({kind(run.config) for run in unknown})
        console.print(f"measuring the speed of {kinds} kind{'s' * (kinds != 1)} of training")
        known |= measure_speeds(unknown, launcher)
    return known


def tell_cost(
    to_do: Sequence[tuple[StudyRun, RunResult]],
    speeds: Mapping[str, Speed],
    launcher: Launcher,
    console: Console,
) -> Cost:
    """Tells, and returns, what the runs still cost, by the speed of each kind of training."""
    told: dict[str, list[float]] = {}
    for run, _ in to_do:
        told.setdefault(run.arm, []).append(speeds[kind(run.config)].training)
    for arm, rates in told.items():
        # Of several games the slowest and the fastest.
        ends = dict.fromkeys(f"{rate:,.0f}" for rate in (min(rates), max(rates)))
        console.print(f"  {arm}: {' to '.join(ends)} steps/s")
    runs, done = [run for run, _ in to_do], [result.steps for _, result in to_do]
    cost = estimate(runs, done, speeds, launcher.workers)
    console.print(f"to do: {cost}")
    return cost


def _duration(hours: float) -> str:
    return f"{hours:.1f} hours" if hours >= 1 else f"{60 * hours:.1f} minutes"
