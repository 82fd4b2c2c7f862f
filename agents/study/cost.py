"""What a study will cost: a short measurement of each kind of training, before any is run."""

from __future__ import annotations

import heapq
import json
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

from rich.console import Console
from stable_baselines3.common.base_class import BaseAlgorithm

from agents.config import TrainConfig
from agents.evaluate.evaluation import evaluate_agent, game_environments
from agents.evaluate.random_agent import random_length
from agents.launchers.local import Job, Launcher
from agents.measure.learners import our_agent
from agents.study.plan import StudyRun
from envs.errors import UserError
from rlcnn.accelerate.devices import use_threads
from rlcnn.report import RunResult
from rlcnn.report.style import plural
from rlcnn.runs.progress import ProgressDisplay

MEASURED_GAMES = 3
"""Games in which each arm is measured; its speed in others is taken as their mean."""

# How long a training is measured, and never more than a tenth of it.
CALIBRATION_STEPS = 4_096
CALIBRATION_SECONDS = 20.0

# How long evaluation is measured, and never for more steps than the training has.
EVALUATION_SECONDS = 3.0
LONGEST_GAME = 2_500


@dataclass(frozen=True)
class Speed:
    """Agent steps per second of a kind of training, and those of one game of random actions.

    ``evaluation`` and ``interim`` count the steps of all games together, in the evaluation at the
    end and in those before it, which play fewer games at once.
    """

    training: float
    evaluation: float
    game: float
    interim: float

    def seconds(self, config: TrainConfig, done: int) -> tuple[float, float]:
        """Time left after ``done`` steps: of training, and of evaluations.

        Games are assumed to last as long as with random actions.
        """
        left = max(0, config.total_steps - done)
        seconds = config.eval_episodes * self.game / self.evaluation
        if config.eval_every and config.eval_episodes and left:
            times = (config.total_steps - 1) // config.eval_every - done // config.eval_every
            games = times * (config.interim_episodes or config.eval_episodes)
            length = min(self.game, config.interim_max_steps or self.game)
            seconds += games * length / self.interim
        return left / self.training, seconds

    def to_json(self) -> dict[str, float]:
        """As JSON values."""
        # Studies on disk have the second key.
        return {
            "training": self.training,
            "judging": self.evaluation,
            "game": self.game,
            "interim": self.interim,
        }

    @classmethod
    def from_json(cls, document: Any) -> Speed | None:
        """Reads :meth:`to_json`; None for anything else, such as an earlier release's."""
        try:
            return cls(
                *(float(document[key]) for key in ("training", "judging", "game", "interim"))
            )
        except (KeyError, TypeError, ValueError):
            return None


@dataclass(frozen=True)
class Cost:
    """What a study still costs.

    ``hours`` are those until the last of ``runs`` runs is done, ``workers`` at once, without films;
    ``steps`` are all their agent steps. ``evaluation`` is the share of evaluations in that time,
    with games as long as random ones.
    """

    runs: int
    steps: int
    hours: float
    evaluation: float
    workers: int

    def __str__(self) -> str:
        """One line for people."""
        return (
            f"{plural(self.runs, 'run')}, {self.steps:,} agent steps, {self.workers} at once:"
            f" about {_duration(self.hours)}, of which {100 * self.evaluation:.0f}% evaluations if"
            " games last as long as at random; films not counted"
        )


def measure_speed(config: TrainConfig) -> Speed:
    """Measures some thousand steps of a training, and some seconds of games.

    The first iteration, which may compile code, does not count.

    Raises:
        UserError: no agent can be built with these options.
    """
    config = config.resolve()
    # Neither the time to fill a replay nor its memory counts.
    short = config.hyperparameters.with_short_warm_up(config.num_envs)
    config = config.with_hyperparameters(short)
    with use_threads(config.num_threads), closing(our_agent(config)) as learner:
        if learner.warm_up_steps:
            learner.learn(learner.warm_up_steps)
        learner.learn(learner.least_steps)
        enough = min(CALIBRATION_STEPS, config.total_steps // 10)
        steps, began = 0, time.monotonic()
        while True:
            steps += learner.learn(learner.least_steps)
            seconds = time.monotonic() - began
            if steps >= enough or seconds >= CALIBRATION_SECONDS:
                break
        evaluation = _evaluation_speed(learner.model, config, config.eval_episodes)
        interim, games = evaluation, config.interim_episodes
        if config.eval_every and games not in (0, config.eval_episodes):
            interim = _evaluation_speed(learner.model, config, games)
    length = random_length(config, most=min(LONGEST_GAME, config.total_steps))
    return Speed(steps / seconds, evaluation, length, interim)


class _Enough(Exception):  # noqa: N818
    """The evaluation has run long enough to know its speed."""


def _evaluation_speed(model: BaseAlgorithm, config: TrainConfig, games: int) -> float:
    """Agent steps per second of an evaluation's ``games``, which stop before their end."""
    environments = game_environments(games)
    choices, began = 0, time.monotonic()

    def count() -> None:
        nonlocal choices, began
        if choices == 0:
            # The time to make the environments does not count.
            began = time.monotonic()
        elif (
            time.monotonic() - began >= EVALUATION_SECONDS
            or choices * environments >= config.total_steps
        ):
            raise _Enough
        choices += 1

    with suppress(_Enough):
        evaluate_agent(model, config, episodes=games, on_step=count)
    return choices * environments / (time.monotonic() - began)


def kind(config: TrainConfig) -> str:
    """The options of a study's training on which its speed depends, as one key."""
    return f"{config.env} {_network(config)}"


def _network(config: TrainConfig) -> str:
    shown = (config.num_envs, config.obs, config.obs_size, config.frame_stack)
    learned = (config.encoder, config.encoder_options, config.mode, config.algo)
    return json.dumps([*learned, *shown, asdict(config.hyperparameters)], sort_keys=True)


def measure_speeds(
    runs: Sequence[StudyRun], launcher: Launcher, console: Console
) -> dict[str, Speed]:
    """The speed of each kind of training among ``runs``, measured on the launcher's workers.

    All workers measure at once, some kinds twice, because they share the machine. Each network is
    measured in its first few games only.

    Raises:
        UserError: a kind cannot be trained; the line says why.
    """
    networks: dict[str, dict[str, StudyRun]] = {}
    for run in runs:
        games = networks.setdefault(_network(run.config), {})
        if len(games) < MEASURED_GAMES:
            games.setdefault(run.config.env, run)
    kinds = {kind(run.config): run for games in networks.values() for run in games.values()}
    speeds: dict[str, list[Speed]] = {name: [] for name in kinds}
    jobs = []
    for number, name in zip(range(max(len(kinds), launcher.workers)), cycle(sorted(kinds))):
        # A resumed run may have lost its first weights; its speed does not depend on them.
        config = replace(kinds[name].config, num_threads=launcher.threads, weights="none")
        jobs.append(Job(f"{number} {name}", partial(measure_speed, config), Path(os.devnull)))
    with (
        ProgressDisplay(console, transient=True) as display,
        closing(launcher.run(jobs, lambda _: None)) as outcomes,
    ):
        task = display.add("measuring speed", len(jobs))
        for outcome in outcomes:
            task.advance()
            name = outcome.name.partition(" ")[2]
            if outcome.state != "done":
                raise UserError(f'arm "{kinds[name].arm}" cannot be trained: {outcome.reason}')
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
        *(statistics.mean(getattr(each, field.name) for each in speeds) for field in fields(Speed))
    )


def known_speeds(
    document: dict[str, Any], runs: Sequence[StudyRun], launcher: Launcher, console: Console
) -> dict[str, Speed]:
    """The speed of each kind of training, measured now unless ``study.json`` holds it.

    ``document`` is the content of that file, or nothing.

    Raises:
        UserError: as :func:`measure_speeds`.
    """
    kept = (document.get("speeds") or {}).get(str(launcher.threads), {})
    read = {name: Speed.from_json(value) for name, value in kept.items()}
    known = {name: speed for name, speed in read.items() if speed is not None}
    unknown = [run for run in runs if kind(run.config) not in known]
    if unknown:
        kinds = plural(len({kind(run.config) for run in unknown}), "kind")
        console.print(f"measuring the speed of {kinds} of training")
        known |= measure_speeds(unknown, launcher, console)
    return known


def estimate(
    runs: Sequence[StudyRun], steps_done: Sequence[int], speeds: Mapping[str, Speed], workers: int
) -> Cost:
    """The cost of ``runs``; the first free worker takes the next run."""
    free = [0.0] * workers
    seconds, evaluation, steps = 0.0, 0.0, 0
    for run, done in zip(runs, steps_done, strict=True):
        parts = speeds[kind(run.config)].seconds(run.config, done)
        heapq.heapreplace(free, free[0] + sum(parts))
        seconds, evaluation = seconds + sum(parts), evaluation + parts[1]
        steps += max(0, run.config.total_steps - done)
    share = evaluation / seconds if seconds else 0.0
    return Cost(len(runs), steps, max(free) / 3600, share, workers)


def print_cost(
    to_do: Sequence[tuple[StudyRun, RunResult]],
    speeds: Mapping[str, Speed],
    launcher: Launcher,
    console: Console,
) -> None:
    """Prints what the runs still cost, by the speed of each kind of training."""
    by_arm: dict[str, list[float]] = {}
    for run, _ in to_do:
        by_arm.setdefault(run.arm, []).append(speeds[kind(run.config)].training)
    for arm, rates in by_arm.items():
        # The slowest and the fastest of several games.
        ends = dict.fromkeys(f"{rate:,.0f}" for rate in (min(rates), max(rates)))
        console.print(f"  {arm}: {' to '.join(ends)} steps/s")
    runs, done = [run for run, _ in to_do], [result.steps for _, result in to_do]
    console.print(f"to do: {estimate(runs, done, speeds, launcher.workers)}")


def _duration(hours: float) -> str:
    return f"{hours:.1f} hours" if hours >= 1 else f"{60 * hours:.1f} minutes"
