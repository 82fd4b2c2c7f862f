"""A training run from its configuration to its summary."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from rich.console import Console
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.logger import Logger

from agents.config import TrainConfig, read_config
from agents.evaluate.evaluation import Evaluation, evaluate_agent
from agents.evaluate.films import Filming
from agents.networks.transfer_options import notes_on_transfer
from agents.registry import Agent
from agents.train.builder import build_agent, check_resources, load_report, make_train_env
from agents.train.callbacks import BetweenUpdates, Every, ShowProgress, UpdateLog
from agents.train.card import card_of
from agents.train.checkpoint import POLICY, STATE, load_checkpoint, save_checkpoint
from agents.train.description import (
    describe_return,
    describe_score,
    describe_training,
    next_commands,
)
from agents.train.device_notes import notes_on_device
from agents.train.run_length import last_step, notes_on_length
from envs.errors import EnvironmentFailure, UserError
from rlcnn.accelerate.devices import use_threads
from rlcnn.accelerate.malloc import keep_freed_memory
from rlcnn.runs import lifecycle
from rlcnn.runs.commands import Facts
from rlcnn.runs.directory import RunDirectory, claimed_directory
from rlcnn.runs.lifecycle import Attempt, default_directory, new_run, open_to_resume
from rlcnn.runs.progress import make_console, print_line, waiting
from rlcnn.runs.stopping import TrainingStopped
from rlcnn.runs.tracking.tracker import RunCard
from rlcnn.runs.tracking.trackers import TrackerWriter

RESUMABLE = lifecycle.RESUMABLE | {
    "total_steps",
    "compile",
    "cuda_graphs",
    "env_groups",
    "env_workers",
    "replay_device",
    "overlap",
    "eval_episodes",
    "interim_episodes",
    "interim_max_steps",
    "video_every",
    "video_overlay",
    "save_replay",
}
"""Options that may change on a resume: the run's length, where it runs and what it records."""


EVALUATION, VIDEO = "eval/mean_return", "video/game"


def train(
    config: TrainConfig,
    run_dir: Path | None = None,
    *,
    console: Console | None = None,
    command: list[str] | None = None,
    labels: Mapping[str, Any] | None = None,
) -> Path:
    """Trains an agent in a new run directory.

    Args:
        config: the run; every "auto" in it is resolved and the result written to ``config.json``.
        run_dir: its directory; by default one in ``runs/``, named after the configuration, with a
            number where another run has that name.
        console: shows progress; by default standard error.
        command: the command line to note in ``config.json`` and ``attempts.json``; by default this
            process's.
        labels: a "group" and "tags" that place the run in Weights & Biases; kept in
            ``config.json``, so that they hold for every attempt.

    Returns:
        The run directory.

    Raises:
        UserError: for anything that the user can correct, before anything is lost.
        EnvironmentFailure: an environment raised an error; a checkpoint holds what was learned.
        TrainingStopped: a stop was requested, by Ctrl-C for example; a checkpoint was written.
    """
    config.validate()
    asked, config = config, config.resolve()
    console = console or make_console()
    with (
        use_threads(config.num_threads),
        closing(make_train_env(config)) as venv,
        claimed_directory(run_dir, default_run_dir(config), console) as path,
    ):
        with waiting(console, "building the agent"):
            model = build_agent(config, venv)
            check_resources(model, config, path)
        document = {"config": config.to_json(), **({"labels": dict(labels)} if labels else {})}
        with new_run(path, document, command) as run:
            notes = [
                *notes_on_transfer(config),
                *config.algorithm.notes_on_encoder(config.encoder, config.encoder_options),
                *notes_on_device(asked, config, model),
            ]
            Training(run, config, model, console, notes).begin(load_report(model))
    return run.path


def resume(
    run_dir: Path,
    changes: dict[str, Any] | None = None,
    *,
    console: Console | None = None,
    command: list[str] | None = None,
) -> Path:
    """Resumes a run from its last whole checkpoint.

    The environments start new games, with seeds derived from the run's seed and the step.

    Args:
        run_dir: the run, which is returned.
        changes: options that differ from the run's, of :data:`RESUMABLE`; a greater
            ``total_steps`` extends a run, finished or not, and stretches the schedules over the
            new length; DQN's epsilon does not rise again.
        console: as for :func:`train`.
        command: as for :func:`train`.

    Raises:
        UserError: the run is missing, damaged, in use or done, or a change is not possible.
        EnvironmentFailure: as :func:`train`, which also says when TrainingStopped is raised.
    """
    console = console or make_console()
    with open_to_resume(
        run_dir,
        changes,
        console,
        read_config=read_config,
        resumable=RESUMABLE,
        length="total_steps",
        unit="steps",
    ) as resumed:
        config, checkpoint = resumed.config, resumed.checkpoint
        step = int(checkpoint.name) if checkpoint else 0
        if config.total_steps < min(step, resumed.before.total_steps):
            raise UserError(
                f"--total-steps {config.total_steps} is too few: the run has learned from {step:,}"
                " steps already"
            )
        with closing(make_train_env(config)) as venv:
            # A checkpoint holds all weights: the file of the first ones may be gone by now.
            start = dataclasses.replace(config, weights="none") if checkpoint else config
            with waiting(console, "building the agent"):
                model = build_agent(start, venv, step)
                check_resources(model, config, run_dir)
            notes = notes_on_device(resumed.asked, config, model)
            Training(resumed.run, config, model, console, notes).resume(resumed, command)
    return run_dir


def default_run_dir(config: TrainConfig) -> Path:
    """``runs/<game>-<algorithm>-<encoder>-seed<N>-<time>``."""
    game = config.env.split("/")[-1].split(":")[-1]
    return default_directory(f"{game}-{config.algo}", config.encoder, config.seed)


class Training(Attempt[TrainConfig]):
    """One attempt at a run of an agent, with its evaluations and films."""

    section = "config"

    def __init__(
        self,
        run: RunDirectory,
        config: TrainConfig,
        model: Agent,
        console: Console,
        notes: Sequence[str],
    ) -> None:
        super().__init__(run, config, console, notes)
        self.model = model
        model.set_logger(Logger(None, []))
        self._pending: list[str] = []
        self._learned: int | None = None
        # Before a checkpoint is restored: environments may draw from global generators.
        self._filming = Filming(config, console)

    @property
    def step(self) -> int:
        """Agent steps."""
        return self.model.num_timesteps

    @property
    def progress(self) -> tuple[int, int]:
        """Steps, and the steps of the whole run."""
        return self.step, last_step(self.config, self.step)

    def facts(self) -> Facts:
        return describe_training(self.config, self.model)

    def describe(self) -> list[str]:
        replay = self.config.algorithm.find_replay(self.model)
        stored_steps = 0 if replay is None else replay.pos * replay.n_envs
        notes = notes_on_length(self.config, self.step, stored_steps)
        return [*notes, *filter(None, [self._filming.note])]

    def load_checkpoint(self, directory: Path) -> float:
        extra = load_checkpoint(self.model, directory)
        # An attempt may have done these since, and have stopped before its next checkpoint.
        done = self._logged(self.step)
        self._pending = [name for name in extra.get("owed", ()) if name not in done]
        self.console.print(f"resuming from step {self.step:,}")
        algorithm = self.config.algorithm
        for line in algorithm.notes_on_resume(self.model, self.config.total_steps):
            self.console.print(line)
        return float(extra["wall_seconds"])

    def write_checkpoint(self, directory: Path) -> None:
        save_checkpoint(
            self.model,
            directory,
            replay=self.config.save_replay,
            extra={"wall_seconds": self.wall_seconds, "owed": self._pending},
            about={"env": self.config.env, "mode": self.config.mode},
        )

    def checkpoint_written(self) -> None:
        # They are large.
        self.run.drop_from_older("replay.safetensors")

    def learn(self) -> None:
        config, model = self.config, self.model
        if self.step >= config.total_steps:
            return
        keep_freed_memory()
        writer = TrackerWriter(self.tracker, lambda: self.wall_seconds)
        model.logger.output_formats.append(writer)
        eval_every = config.eval_every if config.eval_episodes else 0
        video_every = eval_every if config.video_every is None else config.video_every
        # A run that begins again from its start has lost the row of its first film.
        first = config.video_every is None and self.step == 0 and VIDEO not in self._logged(0)
        periodic = {
            name: Every(steps, action, pending=now or bool(steps and name in self._pending))
            for name, steps, action, now in (
                (EVALUATION, eval_every, self.evaluate_so_far, False),
                (VIDEO, video_every, self.film, first),
            )
        }
        self._pending = []
        callbacks: list[BaseCallback] = [
            ShowProgress(self.task),
            BetweenUpdates(self._note_learned),
            *([UpdateLog()] if config.algorithm.on_policy else []),
            *periodic.values(),
            # After the others, so that a checkpoint's step has all its rows.
            Every(config.checkpoint_every, self.checkpoint),
            BetweenUpdates(self.stop.check),
        ]
        try:
            model.learn(
                config.total_steps - self.step,
                callback=CallbackList(callbacks),
                log_interval=config.algorithm.log_interval,
                reset_num_timesteps=False,
            )
            self._log_last_losses()
        except (TrainingStopped, EnvironmentFailure) as error:
            self._pending = [name for name, every in periodic.items() if every.pending]
            if isinstance(error, EnvironmentFailure):
                self._save_after_failure()
                raise
        if self.step != self.saved_step:
            self.checkpoint()
        # Also of a request that came during that checkpoint, which may take long.
        if self.stop.requested:
            self.stop_here(f"at step {self.step:,}")

    def _note_learned(self) -> None:
        self._learned = self.step

    def _save_after_failure(self) -> None:
        if self.config.algorithm.on_policy and self._learned is not None:
            # PPO does not learn from an unfinished rollout.
            self.model.num_timesteps = self._learned
        if self.step in (0, self.saved_step):
            return
        try:
            self.checkpoint()
        except UserError as error:
            print_line(self.console, f"no checkpoint at step {self.step:,}: {error}")

    def _log_last_losses(self) -> None:
        """Logs DQN's losses since its last row, which it would log with the next games.

        Only at the end: a stopped run logs them after its resume.
        """
        if not self.config.algorithm.on_policy and not self._logged(self.step):
            self.model.dump_logs()

    def _logged(self, step: int) -> set[str]:
        return {key for row in self.run.metrics() if row["step"] == step for key in row}

    @property
    def card(self) -> RunCard:
        return card_of(self.config)

    def model_files(self) -> list[Path]:
        checkpoint = self.run.checkpoints()[-1]
        return [checkpoint / POLICY, checkpoint / STATE, self.run.path / "summary.json"]

    def evaluate_so_far(self) -> None:
        """Evaluates the agent between two updates and logs it; a stop ends it silently."""
        config = self.config
        evaluation = self._evaluate(
            config.interim_episodes or config.eval_episodes,
            step=self.step,
            purpose="evaluate_during_training",
            max_steps=config.interim_max_steps,
            on_step=self.stop.check,
        )
        self._log_evaluation(evaluation)

    def _evaluate(self, episodes: int, **options: Any) -> Evaluation:
        with self.task.activity("evaluating", episodes) as on_game:
            return evaluate_agent(
                self.model, self.config, episodes=episodes, on_game=on_game, **options
            )

    def finish(self) -> Facts:
        run, step, evaluation = self.run, self.step, None
        training_seconds = self.wall_seconds
        # An attempt that was interrupted later has logged the same games already.
        logged = self._logged(step)
        if self.config.eval_episodes:
            evaluation = self._evaluate(self.config.eval_episodes)
            if EVALUATION not in logged:
                self._log_evaluation(evaluation)
        video = self.film(log=VIDEO not in logged)
        run.write_summary(
            {
                "steps": step,
                "wall_seconds": self.wall_seconds,
                "steps_per_second": step / training_seconds,
                "eval": evaluation.to_json() if evaluation else None,
                "video": str(video.relative_to(run.path)) if video else None,
            }
        )
        return [
            *(describe_score(evaluation, self.config) if evaluation else []),
            ("run", str(run.path)),
            ("checkpoint", str(run.checkpoints()[-1])),
            *([("watch", str(video))] if video else []),
        ]

    def next_commands(self) -> Facts:
        return next_commands(self.config, self.run)

    def film(self, log: bool = True) -> Path | None:
        """Films a game to ``videos/`` and logs it.

        Returns:
            The film's path; None where it failed, which costs one line.
        """
        path = self.run.videos_dir / f"{self.step:012d}.mp4"
        with self.task.activity("filming"):
            film = self._filming.film(self.model, path, self.step, self.stop.check)
        if film is None:
            return None
        if log:
            self.tracker.video(self.step, VIDEO, path, film.caption)
        return path

    def _log_evaluation(self, result: Evaluation) -> None:
        print_line(self.console, f"step {self.step:,}: mean return {describe_return(result)}")
        self.tracker.log(
            self.step,
            {
                EVALUATION: result.mean_return,
                "eval/std": result.std,
                "eval/mean_length": sum(result.lengths) / len(result.lengths),
                "eval/episodes": len(result.returns),
            },
        )
