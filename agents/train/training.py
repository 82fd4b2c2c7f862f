"""A training run from its configuration to its summary."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from rich.console import Console
from stable_baselines3.common.callbacks import CallbackList
from stable_baselines3.common.logger import Logger

from agents.config import TrainConfig, read_config
from agents.evaluate.evaluation import Evaluation, evaluate_agent
from agents.evaluate.films import Filming
from agents.networks.transfer_options import notes_on_transfer
from agents.registry import Agent
from agents.train.builder import (
    build_agent,
    check_resources,
    describe_storage,
    load_report,
    make_train_env,
)
from agents.train.callbacks import (
    Every,
    LearnedSteps,
    ProgressDisplay,
    StopRequest,
    UpdateLog,
)
from agents.train.checkpoint import load_checkpoint, save_checkpoint
from agents.train.device_notes import describe_device_use, notes_on_device
from agents.train.run_length import notes_on_length
from envs.errors import EnvironmentFailure, UserError, in_shell
from rlcnn.accelerate.devices import use_threads
from rlcnn.accelerate.malloc import keep_freed_memory
from rlcnn.runs.attempts import changed, made_by, newest_checkpoint
from rlcnn.runs.directory import RunDirectory
from rlcnn.runs.files import write_json_atomic
from rlcnn.runs.progress import make_console
from rlcnn.runs.stopping import TrainingStopped, answering_signals
from rlcnn.runs.tracking import Tracker, TrackerWriter, make_tracker

RESUMABLE = frozenset(
    {
        "total_steps",
        "num_threads",
        "device",
        "compile",
        "cuda_graphs",
        "env_groups",
        "replay_device",
        "overlap",
        "track",
        "project",
        "eval_every",
        "eval_episodes",
        "video_every",
        "checkpoint_every",
        "keep_checkpoints",
        "save_replay",
    }
)
"""Options that may change when a run goes on: how long, where, and what is told of it."""


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
        run_dir: where to; by default ``runs/`` with a name made of the configuration, and a number
            after it where another run has that name.
        console: where progress is told; by default standard error.
        command: the command line to note in ``config.json`` and ``attempts.json``; by default this
            process's.
        labels: what shows the run beside others in Weights & Biases, a "group" and "tags"; noted in
            ``config.json``, so that they hold for every attempt.

    Returns:
        The run directory.

    Raises:
        UserError: for whatever a user can mend, before anything is lost.
        EnvironmentFailure: an environment raised something; what was learned is in a checkpoint.
        TrainingStopped: it was asked to stop, by Ctrl-C for example; a checkpoint was cut.
    """
    config.validate()
    asked, config = config, config.resolve()
    console = console or make_console()
    create = RunDirectory.create if run_dir else RunDirectory.create_numbered
    run_dir = run_dir or default_run_dir(config)
    with use_threads(config.num_threads), closing(make_train_env(config)) as venv:
        model = build_agent(config, venv)
        check_resources(model, config, run_dir)
        about = made_by(command)
        document = {"config": config.to_json(), **about}
        if labels:
            document["labels"] = dict(labels)
        with create(run_dir, document) as run:
            run.begin_attempt(about)
            if report := load_report(model):
                write_json_atomic(run.path / "weights.json", report.to_json())
                _tell(console, str(report))
            for line in (*notes_on_transfer(config), *notes_on_device(asked, config, model)):
                _tell(console, line)
            _run(Training(run, config, model, console), purge_step=None)
    return run.path


def resume(
    run_dir: Path,
    changes: dict[str, Any] | None = None,
    *,
    console: Console | None = None,
    command: list[str] | None = None,
) -> Path:
    """Goes on with a run from its last whole checkpoint.

    The environments start new games, with seeds derived from the run's seed and the step.

    Args:
        run_dir: the run.
        changes: options that differ from the run's, of :data:`RESUMABLE`; a greater
            ``total_steps`` extends a run, finished or not, over whose new length the schedules
            then reach; DQN's epsilon does not rise again.
        console: where progress is told; by default standard error.
        command: the command line to note in ``attempts.json``; by default this process's.

    Returns:
        The run directory.

    Raises:
        UserError: the run is missing, damaged, in use or done, or a change is not possible.
        EnvironmentFailure: as :func:`train`.
        TrainingStopped: as :func:`train`.
    """
    console = console or make_console()
    with ExitStack() as stack:
        run = stack.enter_context(RunDirectory.open(run_dir, write=True))
        before = read_config(run)
        config = change_config(before, changes or {})
        config.validate()
        asked, config = config, config.resolve()
        summary = run.summary()
        if summary is not None and summary.get("steps", 0) >= config.total_steps:
            raise UserError(
                f"run {run_dir} is done: it took its {summary['steps']:,} steps."
                f" Extend it with --total-steps {2 * max(summary['steps'], before.total_steps)}"
            )
        run.recover()
        checkpoint = newest_checkpoint(run, console.print)
        step = int(checkpoint.name) if checkpoint else 0
        if config.total_steps < min(step, before.total_steps):
            raise UserError(
                f"--total-steps {config.total_steps} lies behind the run, which has learned from"
                f" {step:,} steps"
            )
        stack.enter_context(use_threads(config.num_threads))
        venv = stack.enter_context(closing(make_train_env(config)))
        # A checkpoint holds all weights: those that the run began from may be gone by now.
        start = dataclasses.replace(config, weights="none") if checkpoint else config
        model = build_agent(start, venv, step)
        check_resources(model, config, run_dir)
        training = Training(run, config, model, console)
        if checkpoint:
            training.restore(checkpoint)
        else:
            console.print("there is no checkpoint yet: beginning again")
        # The run on disk changes only now, when nothing of it can be refused any more.
        run.truncate_metrics(step if checkpoint else -1)
        run.begin_attempt(made_by(command))
        if config != before:
            run.update_config({"config": config.to_json()})
        for line in notes_on_device(asked, config, model):
            _tell(console, line)
        _run(training, purge_step=step + 1 if checkpoint else 0)
    return run_dir


def _tell(console: Console, line: str) -> None:
    """Prints a line as it is, paths and all."""
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def change_config(config: TrainConfig, changes: dict[str, Any]) -> TrainConfig:
    """The configuration with a resume's changes.

    Raises:
        UserError: an option cannot change within a run.
    """
    return changed(config, changes, RESUMABLE)


def default_run_dir(config: TrainConfig) -> Path:
    """``runs/<game>-<algorithm>-<encoder>-seed<N>-<time>``."""
    game = config.env.split("/")[-1].split(":")[-1]
    encoder = re.sub(r"[:/]", "-", config.encoder)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"{game}-{config.algo}-{encoder}-seed{config.seed}-{stamp}"


class Training:
    """One attempt at a run: the agent and what happens beside its learning."""

    def __init__(
        self, run: RunDirectory, config: TrainConfig, model: Agent, console: Console
    ) -> None:
        self.run, self.config, self.model, self.console = run, config, model, console
        self.tracker: Tracker
        model.set_logger(Logger(None, []))
        self._stop = StopRequest(console.print)
        self._saved_at: int | None = None
        self._owed: list[str] = []
        # Before a checkpoint is restored: environments may draw from global generators.
        self._filming = Filming(config, console)
        self._wall_before = 0.0
        self._began = time.monotonic()

    @property
    def wall_seconds(self) -> float:
        """Seconds spent on the run so far, over all attempts."""
        return self._wall_before + time.monotonic() - self._began

    def restore(self, checkpoint: Path) -> None:
        """Brings the agent to where ``checkpoint`` was cut."""
        extra = load_checkpoint(self.model, checkpoint)
        self._saved_at = self.model.num_timesteps
        self._wall_before = float(extra["wall_seconds"])
        # An attempt that stopped or was killed before its next checkpoint may have done it since.
        done = self._logged(self.model.num_timesteps)
        self._owed = [name for name in extra.get("owed", ()) if name not in done]
        self.console.print(f"resuming from step {self.model.num_timesteps:,}")
        config, model = self.config, self.model
        for line in config.algorithm.notes_on_resume(model, config.total_steps):
            self.console.print(line)

    def notes(self) -> list[str]:
        """Lines on what of this attempt may not be as its user means it, before it begins."""
        replay = self.config.algorithm.find_replay(self.model)
        stored_steps = 0 if replay is None else replay.pos * replay.n_envs
        notes = notes_on_length(self.config, self.model.num_timesteps, stored_steps)
        if self._filming.note:
            notes.append(self._filming.note)
        return notes

    def learn(self) -> None:
        """Trains to the configured number of steps, and cuts a checkpoint there.

        Raises:
            EnvironmentFailure: an environment raised something; a checkpoint was cut.
            TrainingStopped: it was asked to stop; a checkpoint was cut.
        """
        config, model = self.config, self.model
        if model.num_timesteps >= config.total_steps:
            return
        stop = self._stop
        display = ProgressDisplay(config.total_steps, self.console)
        eval_every = config.eval_every if config.eval_episodes else 0
        periodic = {
            EVALUATION: Every(eval_every, self.evaluate_so_far, EVALUATION in self._owed),
            VIDEO: Every(config.video_every, self.film_so_far, VIDEO in self._owed),
        }
        self._owed = []
        learned = LearnedSteps()
        callbacks = CallbackList(
            [
                display,
                learned,
                *([UpdateLog()] if config.algorithm.on_policy else []),
                *periodic.values(),
                # After the others, so that what they logged at this step lies before the cut.
                Every(config.checkpoint_every, self.checkpoint),
                stop,
            ]
        )
        with ExitStack() as stack:
            stack.callback(display.close)
            stack.enter_context(answering_signals(stop.handle))
            try:
                model.learn(
                    config.total_steps - model.num_timesteps,
                    callback=callbacks,
                    log_interval=config.algorithm.log_interval,
                    reset_num_timesteps=False,
                )
                self._log_last_losses()
            except (TrainingStopped, EnvironmentFailure) as error:
                self._owed = [name for name, every in periodic.items() if every.due]
                if isinstance(error, EnvironmentFailure):
                    if config.algorithm.on_policy and learned.steps is not None:
                        # A rollout that was not finished is not learned from.
                        model.num_timesteps = learned.steps
                    self._save_after_failure()
                    raise
            if model.num_timesteps != self._saved_at:
                self.checkpoint()
        if stop.requested:
            raise TrainingStopped(
                f"stopped at step {model.num_timesteps:,}; go on with --resume"
                f" {in_shell(self.run.path)}"
            )

    def _save_after_failure(self) -> None:
        """Cuts a checkpoint, if something was learned; what prevents it is one line."""
        if self.model.num_timesteps in (0, self._saved_at):
            return
        try:
            self.checkpoint()
        except UserError as error:
            _tell(self.console, f"no checkpoint at step {self.model.num_timesteps:,}: {error}")

    def failure(self, error: EnvironmentFailure) -> EnvironmentFailure:
        """The same error, with the way to go on."""
        kept = "Nothing was learned yet"
        if self._saved_at is not None:
            kept = f"The run has a checkpoint of step {self._saved_at:,}"
        return EnvironmentFailure(f"{error}. {kept}: go on with --resume {in_shell(self.run.path)}")

    def _log_last_losses(self) -> None:
        """Logs what DQN would have told with the next games, unless some ended in this very step.

        At the end only: a run that was stopped tells it when it has gone on.
        """
        on_policy = self.config.algorithm.on_policy
        if not on_policy and not self._logged(self.model.num_timesteps):
            self.model.dump_logs()

    def _logged(self, step: int) -> set[str]:
        """What the rows of ``step`` hold."""
        return {key for row in self.run.metrics() if row["step"] == step for key in row}

    def evaluate_so_far(self) -> None:
        """Judges the agent as it stands and logs it; a stop ends it without a word."""
        step = self.model.num_timesteps
        result = evaluate_agent(
            self.model,
            self.config,
            purpose="evaluate_during_training",
            step=step,
            on_step=self._stop.check,
        )
        self._log_evaluation(step, result)

    def film_so_far(self) -> None:
        """Films a game as the agent plays now."""
        self.film(self.model.num_timesteps)

    def checkpoint(self) -> None:
        """Writes all that the next update depends on.

        Raises:
            UserError: there is no room for it, or a parameter is no longer a finite number.
        """
        run, step = self.run, self.model.num_timesteps
        with run.new_checkpoint(step) as directory:
            save_checkpoint(
                self.model,
                directory,
                replay=self.config.save_replay,
                extra={"wall_seconds": self.wall_seconds, "owed": self._owed},
                about={"env": self.config.env, "mode": self.config.mode},
            )
        self._saved_at = step
        run.drop_from_older("replay.safetensors")
        run.prune(self.config.keep_checkpoints)

    def finish(self) -> None:
        """Evaluates and films the trained agent and writes the summary."""
        run, step, evaluation = self.run, self.model.num_timesteps, None
        training_seconds = self.wall_seconds
        # By an attempt that was interrupted later on: the same games would be logged twice.
        logged = self._logged(step)
        if self.config.eval_episodes:
            self.console.print(f"evaluating over {self.config.eval_episodes} whole games")
            evaluation = evaluate_agent(self.model, self.config)
            if EVALUATION not in logged:
                self._log_evaluation(step, evaluation)
        self.console.print("filming a whole game")
        video = self.film(step, log=VIDEO not in logged)
        run.write_summary(
            {
                "steps": step,
                "wall_seconds": self.wall_seconds,
                "steps_per_second": step / training_seconds,
                "eval": evaluation.to_json() if evaluation else None,
                "video": str(video.relative_to(run.path)) if video else None,
            }
        )
        if evaluation:
            self.console.print(
                f"evaluation: mean return {evaluation.mean_return:.2f}"
                f" (std {evaluation.std:.2f}, {len(evaluation.returns)} games)"
            )
        self.console.print(f"run:        {run.path}")
        if video:
            self.console.print(f"video:      {video}")
        self.console.print(f"checkpoint: {run.checkpoints()[-1]}")

    def film(self, step: int, log: bool = True) -> Path | None:
        """Films a game to ``videos/`` and logs it.

        Returns:
            The film's path; None where it failed, which costs a line and nothing else.
        """
        path = self.run.videos_dir / f"{step:012d}.mp4"
        film = self._filming.film(self.model, path, step, self._stop.check)
        if film is None:
            return None
        if log:
            self.tracker.video(step, VIDEO, path, film.caption)
        return path

    def _log_evaluation(self, step: int, result: Evaluation) -> None:
        self.tracker.log(
            step,
            {
                EVALUATION: result.mean_return,
                "eval/std": result.std,
                "eval/mean_length": sum(result.lengths) / len(result.lengths),
                "eval/episodes": len(result.returns),
            },
        )


EVALUATION, VIDEO = "eval/mean_return", "video/game"


def _run(training: Training, purge_step: int | None) -> None:
    run, config, console = training.run, training.config, training.console
    notes, model = training.notes(), training.model
    for line in [*notes, describe_device_use(config), describe_storage(model)]:
        _tell(console, line)
    keep_freed_memory()
    with closing(
        make_tracker(run, config.track, project=config.project, purge_step=purge_step)
    ) as tracker:
        training.tracker = tracker
        training.model.logger.output_formats.append(TrackerWriter(tracker))
        try:
            training.learn()
            training.finish()
        except EnvironmentFailure as error:
            raise training.failure(error) from error
        except KeyboardInterrupt:
            console.print(f"continue with --resume {in_shell(run.path)}")
            raise
