"""Hand-written studies on disk, to report on without training."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from agents.config import TrainConfig
from agents.launchers.local import Job, Launcher, Outcome, Tick, perform
from agents.study.arms import parse_arm
from agents.study.plan import StudyPlan, StudyRun
from agents.study.results import FAILURES, PLAN, failure_path
from agents.study.runner import RANDOM
from envs.films.mp4 import Mp4Writer
from rlcnn.runs.directory import RunDirectory
from rlcnn.runs.files import write_json_atomic
from support.tiny_agents import TINY

STEPS = 1_000_000
SCRIPT = "/someone/rlcnn/scripts/compare_encoders.py"
COMMAND = [SCRIPT, "--games", "Pong", "--arms", "scratch", "a b"]
RANDOM_RETURNS = [-21.0, -20.0, -21.0, -20.5] * 8


def tiny_plan(*arms: str, **changes: Any) -> StudyPlan:
    """A plan that takes seconds to train: a tiny game, two seeds of each arm."""
    texts = arms or ("scratch", "frozen-random")
    given: dict[str, Any] = {"games": ("support.games:Signals-v0",), "seeds": (0, 1), "base": TINY}
    return StudyPlan(arms=tuple(parse_arm(text) for text in texts), **{**given, **changes})


Ends = Callable[[StudyRun], float | str]
"""The end of a run: its score, or "failed", "begun" or "waiting"."""


def make_plan(
    *arms: str, games: tuple[str, ...] = ("ALE/Pong-v5",), seeds: int = 5, **options: Any
) -> StudyPlan:
    given = {"track": "disabled", "total_steps": STEPS, **options}
    return StudyPlan(
        games=games,
        arms=tuple(parse_arm(text) for text in arms or ("scratch", "frozen-random")),
        seeds=tuple(range(seeds)),
        base=TrainConfig(**given),
    )


def write_study(
    path: Path,
    plan: StudyPlan,
    ends: Ends,
    *,
    evaluations: int = 10,
    origins: Mapping[str, Any] | None = None,
    film: bool = False,
) -> Path:
    """Writes a study whose runs have the results of ``ends``.

    Args:
        path: directory of the study.
        plan: plan of the study.
        ends: the result of each run.
        evaluations: number of evaluations of each finished run, evenly over its steps.
        origins: arm -> the origin of its weights, as in ``weights.json``.
        film: whether each run has a film.
    """
    for directory in ("runs", "logs", FAILURES):
        (path / directory).mkdir(parents=True)
    document = {
        "plan": plan.to_json(),
        "command": COMMAND,
        "began": "2026-01-02T03:04:05+00:00",
        "provenance": {"versions": {"rlcnn": "0.1.0", "torch": "2.15"}, "cpu": "a processor"},
    }
    write_json_atomic(path / PLAN, document)
    write_json_atomic(path / RANDOM, dict.fromkeys(plan.games, RANDOM_RETURNS))
    for run in plan.runs:
        _write_run(path, run, ends(run), evaluations, (origins or {}).get(run.arm), film)
    return path


def _write_run(
    study: Path, run: StudyRun, end: float | str, evaluations: int, origin: Any, film: bool
) -> None:
    if end == "failed":
        reason = {"run": run.name, "reason": "the loss became <NaN> & stayed so"}
        write_json_atomic(failure_path(study, run), reason)
    if end == "waiting":
        return
    steps = run.config.total_steps
    with RunDirectory.create(study / run.directory, {"config": run.config.to_json()}) as directory:
        if origin:
            write_json_atomic(directory.path / "weights.json", {"origin": origin})
        reached = evaluations if isinstance(end, float) else evaluations // 2
        final = end if isinstance(end, float) else -15.0
        for place in range(1, reached + 1):
            share = place / evaluations
            # From the random score to the final one, with the steepest rise half-way.
            value = -20.6 + (final + 20.6) / (1 + np.exp(12 * (0.5 - share)))
            value = final if place == evaluations else value
            step = round(share * steps)
            directory.append_metrics(step, {"rollout/ep_rew_mean": value - 1, "train/loss": 0.5})
            directory.append_metrics(step, {"eval/mean_return": value, "eval/episodes": 30})
        if film:
            _film(directory.videos_dir / f"{steps:012d}.mp4", run.seed)
        if isinstance(end, float):
            directory.write_summary(
                {
                    "steps": steps,
                    "wall_seconds": 2_000.0 + 100 * run.seed,
                    "steps_per_second": steps / 1_900.0,
                    "eval": {"mean_return": end, "std": 1.5, "episodes": 30, "returns": [end] * 30},
                }
            )


def _film(path: Path, seed: int) -> None:
    """Half a second of a moving square, with the size of an Atari screen."""
    with Mp4Writer(path, fps=30, height=210) as film:
        for number in range(15):
            picture = np.full((210, 160, 3), (30, 60, 40 + 20 * seed), dtype=np.uint8)
            picture[60:90, 10 * number : 10 * number + 20] = (236, 200, 80)
            film.add(picture)


class InlineLauncher(Launcher):
    """A launcher without processes, which records finished jobs.

    Args:
        interrupt_after: number of jobs before a Ctrl-C; None for no Ctrl-C.
    """

    workers, threads = 1, 1

    def __init__(self, interrupt_after: int | None = None) -> None:
        self.done: list[str] = []
        self._interrupt_after = interrupt_after

    def run(self, jobs: Iterable[Job], tick: Tick) -> Generator[Outcome, None, None]:
        for job in jobs:
            if len(self.done) == self._interrupt_after:
                raise KeyboardInterrupt
            tick([job.name])
            outcome = Outcome(job.name, *perform(job.task))
            self.done.append(job.name)
            yield outcome

    def stop(self, name: str) -> None:
        """Nothing: a job ends before anything else runs."""
