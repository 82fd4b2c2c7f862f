"""Searches that take seconds, and a launcher that writes what trainings would have shown."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from agents.config import TrainConfig
from agents.launchers.local import Job, Launcher, Outcome, Tick
from agents.search.objective import parse_objective
from agents.search.plan import Effort, SearchPlan
from agents.search.space import parse_space
from agents.study.curves import TRAINING_RETURN
from rlcnn.runs.directory import RunDirectory
from support.tiny_agents import TINY

SPACE = ("ppo.learning-rate log 1e-4 1e-2", "ppo.n-epochs 1 2 3")
BASE = replace(TINY, env="support.games:Signals-v0", seed=3)


def search_plan(
    *space: str, objective: str = "score", base: TrainConfig = BASE, **effort: Any
) -> SearchPlan:
    """A search of a tiny game: 3 trials, one finalist with 2 seeds."""
    dimensions = parse_space(text.split() for text in space or SPACE)
    given = {"trials": 3, "finalists": 1, "final_seeds": 2, **effort}
    return SearchPlan(dimensions, parse_objective(objective), base, Effort(**given))


Shown = Callable[[TrainConfig], float]
"""The return that a training has shown at its end; it rises towards it from 0 in even steps."""


class WrittenTrainings(Launcher):
    """A launcher that trains nothing: it writes the metrics of a run, a tenth at a time.

    Each tenth takes ``seconds``. The launcher ends a run when it is asked to, or at its end with a
    summary.
    """

    workers, threads = 1, 1

    def __init__(self, shown: Shown, seconds: float = 10.0) -> None:
        self.stopped: list[str] = []
        self._shown, self._seconds = shown, seconds

    def run(self, jobs: Iterable[Job], tick: Tick) -> Generator[Outcome, None, None]:
        for job in jobs:
            config, run_dir, *_ = job.task.args  # type: ignore[attr-defined]
            yield Outcome(job.name, self._write(config, run_dir, job.name, tick))

    def stop(self, name: str) -> None:
        self.stopped.append(name)

    def _write(self, config: TrainConfig, run_dir: Path, name: str, tick: Tick) -> Any:
        score, steps = self._shown(config), config.total_steps
        with RunDirectory.create(run_dir, {"config": config.to_json()}) as run:
            for tenth in range(1, 11):
                values = {
                    TRAINING_RETURN: score * tenth / 10,
                    "rollout/ep_len_mean": 1.0,
                    "time/wall_seconds": self._seconds * tenth,
                }
                run.append_metrics(steps * tenth // 10, values)
                tick([name])
                if name in self.stopped:
                    return "stopped"
            evaluation = {"mean_return": score, "std": 0.0, "episodes": 2}
            figures = {"steps": steps, "wall_seconds": 10 * self._seconds, "steps_per_second": 1.0}
            run.write_summary({**figures, "eval": evaluation})
        return "done"


def clock(step: float = 10.0) -> Callable[[], float]:
    """A clock that is ``step`` seconds later at each look."""
    times = itertools.count()
    return lambda: step * next(times)
