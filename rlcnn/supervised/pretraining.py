"""A training on labelled images, from its configuration to its summary."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from envs.errors import UserError, in_shell
from rlcnn.accelerate.devices import describe_device, use_threads
from rlcnn.runs.attempts import changed, made_by, newest_checkpoint
from rlcnn.runs.directory import RunDirectory, require_vacant
from rlcnn.runs.files import write_atomic, write_json_atomic
from rlcnn.runs.progress import make_console
from rlcnn.runs.stopping import StopRequest, TrainingStopped, answering_signals
from rlcnn.runs.tracking import Tracker, make_tracker
from rlcnn.supervised.classifier import save_classifier
from rlcnn.supervised.config import PretrainConfig, read_pretrain_config
from rlcnn.supervised.display import EpochDisplay
from rlcnn.supervised.evaluation.baselines import Baseline, fit_baselines
from rlcnn.supervised.evaluation.gains import Gains, gains
from rlcnn.supervised.evaluation.metrics import right_by_task
from rlcnn.supervised.setup import (
    PretrainingSetup,
    check_players,
    check_start,
    counted,
    describe,
    load_images,
)
from rlcnn.supervised.trainer import Trainer
from rlcnn.weights.load import BEST, LAST, load_into

if TYPE_CHECKING:
    from rlcnn.data.atari.dataset import PolicyPlay

RESUMABLE = frozenset(
    {
        "epochs",
        "data_dir",
        "device",
        "num_threads",
        "num_workers",
        "eval_every",
        "checkpoint_every",
        "keep_checkpoints",
        "baselines",
        "baseline_images",
        "track",
        "project",
    }
)
"""Options that may change when a run goes on: how long, where, and what is told of it."""


def pretrain(
    config: PretrainConfig,
    run_dir: Path | None = None,
    *,
    policies: Mapping[str, PolicyPlay] | None = None,
    console: Console | None = None,
    command: list[str] | None = None,
) -> Path:
    """Trains an encoder with a linear head on labelled images, in a new run directory.

    Args:
        config: the run; every "auto" in it is resolved and the result written to ``config.json``.
        run_dir: where to; by default ``runs/`` with a name made of the configuration, and a number
            after it where another run has that name.
        policies: of the configuration's ``players``, by their games.
        console: where progress is told; by default standard error.
        command: the command line to note in ``config.json`` and ``attempts.json``; by default this
            process's.

    Returns:
        The run directory.

    Raises:
        UserError: for whatever a user can mend, before anything is lost.
        TrainingStopped: it was asked to stop, by Ctrl-C for example; a checkpoint was cut.
    """
    config.validate()
    config = config.resolve()
    console = console or make_console()
    create = RunDirectory.create if run_dir else RunDirectory.create_numbered
    if run_dir:
        # Before games are played or files decoded, which takes minutes.
        require_vacant(run_dir)
    check_start(config)
    with use_threads(config.num_threads):
        split = load_images(config, console.print, policies)
        setting = PretrainingSetup(config, split)
        encoder = setting.make_encoder(config.seed)
        report = load_into(encoder, config.weights) if config.weights != "none" else None
        trainer = setting.make_trainer(encoder)
        about = made_by(command)
        document = {"pretraining": config.to_json(), "data": describe(split), **about}
        with create(run_dir or default_run_dir(config), document) as run:
            run.begin_attempt(about)
            if report:
                write_json_atomic(run.path / "weights.json", report.to_json())
                console.print(str(report))
            _run(Pretraining(run, config, setting, trainer, console), purge_step=None)
    return run.path


def resume_pretraining(
    run_dir: Path,
    changes: Mapping[str, Any] | None = None,
    *,
    policies: Mapping[str, PolicyPlay] | None = None,
    console: Console | None = None,
    command: list[str] | None = None,
) -> Path:
    """Goes on with a run from its last whole checkpoint, exactly where that was cut.

    Args:
        run_dir: the run.
        changes: options that differ from the run's, of :data:`RESUMABLE`; more ``epochs`` extend a
            run, finished or not, over whose new length the schedule then reaches.
        policies: of the configuration's ``players``, by their games.
        console: where progress is told; by default standard error.
        command: the command line to note in ``attempts.json``; by default this process's.

    Returns:
        The run directory.

    Raises:
        UserError: the run is missing, damaged, in use or done, its data have changed, or a change
            is not possible.
        TrainingStopped: as :func:`pretrain`.
    """
    console = console or make_console()
    with ExitStack() as stack:
        run = stack.enter_context(RunDirectory.open(run_dir, write=True))
        before = read_pretrain_config(run)
        config = changed(before, changes or {}, RESUMABLE)
        config.validate()
        config = config.resolve()
        summary = run.summary()
        if summary is not None and summary.get("epochs", 0) >= config.epochs:
            raise UserError(
                f"run {run_dir} is done: it took its {summary['epochs']} epochs."
                f" Extend it with --epochs {2 * before.epochs}"
            )
        run.recover()
        checkpoint = newest_checkpoint(run, console.print)
        stack.enter_context(use_threads(config.num_threads))
        check_players(run.config["data"], policies, str(run_dir))
        split = load_images(config, console.print, policies)
        if (now := describe(split)) != run.config["data"]:
            raise UserError(
                f"the images of {config.data} are not those that run {run_dir} learns from: it has"
                f" {counted(run.config['data'])}, these are {counted(now)}"
            )
        setting = PretrainingSetup(config, split)
        # A checkpoint holds all weights: those that the run began from may be gone by now.
        encoder = setting.make_encoder(config.seed)
        if checkpoint is None and config.weights != "none":
            load_into(encoder, config.weights)
        trainer = setting.make_trainer(encoder)
        training = Pretraining(run, config, setting, trainer, console)
        if checkpoint:
            training.restore(checkpoint)
            if config.epochs < trainer.epoch + bool(trainer.batch):
                raise UserError(
                    f"--epochs {config.epochs} lies behind the run, which is in its epoch"
                    f" {trainer.epoch + 1}"
                )
        else:
            console.print("there is no checkpoint yet: beginning again")
        # The run on disk changes only now, when nothing of it can be refused any more.
        run.truncate_metrics(trainer.step if checkpoint else -1)
        _bring_back_best(run, checkpoint)
        run.begin_attempt(made_by(command))
        if config != before:
            run.update_config({"pretraining": config.to_json()})
        _run(training, purge_step=trainer.step + 1 if checkpoint else 0)
    return run_dir


def default_run_dir(config: PretrainConfig) -> Path:
    """``runs/pretrain-<data>-<encoder>-seed<N>-<time>``."""
    data = re.sub(r"[^\w.-]+", "-", config.data.rstrip("/").split("/")[-1].split(":")[-1])
    encoder = re.sub(r"[:/]", "-", config.encoder)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"pretrain-{data}-{encoder}-seed{config.seed}-{stamp}"


def _bring_back_best(run: RunDirectory, checkpoint: Path | None) -> None:
    """The best weights as they were at the checkpoint, not those of updates that are done again."""
    kept = checkpoint / BEST if checkpoint else None
    if kept is not None and kept.exists():
        write_atomic(run.path / BEST, kept.read_bytes())
    else:
        (run.path / BEST).unlink(missing_ok=True)


class Pretraining:
    """One attempt at a run: the trainer and what happens beside its updates."""

    def __init__(
        self,
        run: RunDirectory,
        config: PretrainConfig,
        setting: PretrainingSetup,
        trainer: Trainer,
        console: Console,
    ) -> None:
        self.run, self.config, self.console = run, config, console
        self.trainer = trainer
        self.tracker: Tracker
        self.setting = setting
        self._stop = StopRequest(console.print)
        self._best: dict[str, Any] | None = None
        self._last: dict[str, Any] | None = None
        self._saved_at: int | None = None
        self._wall_before = 0.0
        self._began = time.monotonic()

    @property
    def wall_seconds(self) -> float:
        """Seconds spent on the run so far, over all attempts."""
        return self._wall_before + time.monotonic() - self._began

    def restore(self, checkpoint: Path) -> None:
        """Brings the training to where ``checkpoint`` was cut."""
        extra = self.trainer.restore(checkpoint)
        self._saved_at = self.trainer.step
        self._wall_before = float(extra["wall_seconds"])
        self._best, self._last = extra["best"], extra["last"]
        self.console.print(f"resuming from epoch {self.trainer.epoch}, step {self.trainer.step:,}")

    def learn(self) -> None:
        """Trains to the configured number of epochs, and cuts a checkpoint there.

        Raises:
            TrainingStopped: it was asked to stop; a checkpoint was cut.
        """
        trainer, stop = self.trainer, self._stop
        per_epoch = len(self.setting.train_labels)
        done = trainer.epoch * per_epoch + trainer.batch * self.config.batch_size
        with ExitStack() as stack:
            display = EpochDisplay(self.config.epochs, per_epoch, done, self.console)
            stack.callback(display.close)
            stack.enter_context(answering_signals(stop.handle))
            while trainer.epoch < self.config.epochs:
                began, seen = time.monotonic(), 0
                with closing(trainer.learn_epoch()) as updates:
                    for images in updates:
                        display.advance(images)
                        seen += images
                        if stop.requested:
                            self._stop_here()
                # Reading the figures waits until a GPU has done its last update.
                figures = trainer.epoch_figures()
                self._epoch_done(display, figures, seen / (time.monotonic() - began))
                if stop.requested:
                    self._stop_here()

    def _stop_here(self) -> None:
        if self.trainer.step != self._saved_at:
            self.checkpoint()
        raise TrainingStopped(
            f"stopped after {self.trainer.step:,} updates; go on with --resume"
            f" {in_shell(self.run.path)}"
        )

    def _epoch_done(
        self, display: EpochDisplay, figures: dict[str, float], images_per_second: float
    ) -> None:
        trainer, config = self.trainer, self.config
        over = trainer.epoch == config.epochs
        if over or trainer.epoch % config.eval_every == 0:
            figures |= self._judge()
        row = {"epoch": trainer.epoch, **figures, "time/images_per_second": images_per_second}
        self.tracker.log(trainer.step, row)
        if over or (config.checkpoint_every and trainer.epoch % config.checkpoint_every == 0):
            self.checkpoint()
        display.epoch_done(trainer.epoch, summarised(figures))

    def _judge(self) -> dict[str, float]:
        """The figures on the held-out images; weights that are better than before are kept."""
        figures = self.trainer.evaluate()
        self._last = {"epoch": self.trainer.epoch, **figures}
        if self._best is None or figures["test/top1"] > self._best["test/top1"]:
            self._best = self._last
            self.save_weights(BEST, self._best)
        return figures

    def save_weights(self, name: str, figures: Mapping[str, Any] | None) -> None:
        """Writes the classifier as it is judged, and where it comes from, into the run."""
        about = {
            "data": self.config.data,
            "recipe": self.config.recipe,
            # What its images were made to look like, for who judges the file away from its run.
            "colours": self.config.colours,
            "augment": dataclasses.asdict(self.config.augment),
            "frames": dataclasses.asdict(self.config.frames),
            "players": self.config.players,
            "run": str(self.run.path.resolve()),
            "seed": self.config.seed,
            "epoch": self.trainer.epoch,
            "step": self.trainer.step,
            "accuracy": _plain_names(figures or {}),
        }
        save_classifier(self.trainer.evaluated, self.run.path / name, about)

    def checkpoint(self) -> None:
        """Writes all that the next update depends on, and the weights as they are now.

        Raises:
            UserError: there is no room for it.
        """
        run, trainer = self.run, self.trainer
        extra = {"wall_seconds": self.wall_seconds, "best": self._best, "last": self._last}
        with run.new_checkpoint(trainer.step) as directory:
            trainer.save(directory, extra)
            if self._best is not None:
                write_atomic(directory / BEST, (run.path / BEST).read_bytes())
        # Those of an epoch that was judged carry its accuracy; in mid-epoch none is known.
        judged = self._last if self._last and self._last["epoch"] == trainer.epoch else None
        self.save_weights(LAST, judged if not trainer.batch else None)
        self._saved_at = trainer.step
        run.prune(self.config.keep_checkpoints)

    def finish(self) -> None:
        """Sets the accuracy beside its baselines and writes the summary."""
        run, trainer = self.run, self.trainer
        if self._last is None or self._last["epoch"] != trainer.epoch:
            # Its last epoch was not one to be judged, before a resume made it the last.
            self._judge()
        assert self._last is not None
        assert self._best is not None
        beside = self._baselines() if self.config.baselines == "on" else {}
        over = self._gains(beside) if beside else {}
        images = trainer.epoch * len(self.setting.train_labels)
        run.write_summary(
            {
                "epochs": trainer.epoch,
                "steps": trainer.step,
                "wall_seconds": self.wall_seconds,
                "images_per_second": images / self.wall_seconds,
                "parameters": sum(p.numel() for p in trainer.classifier.parameters()),
                "test": {"last": _plain_names(self._last), "best": _plain_names(self._best)},
                "baselines": {k: _plain_names(v.figures) for k, v in beside.items()} or None,
                "gains": {k: v.to_json() for k, v in over.items()} or None,
                "weights": {"best": BEST, "last": LAST},
            }
        )
        tell = self.console.print
        tell(f"held out, last epoch:  {summarised(self._last)}")
        tell(f"held out, best epoch:  {summarised(self._best)} (epoch {self._best['epoch']})")
        for name, baseline in beside.items():
            tell(f"{name + ':':22} {summarised(baseline.figures)}")
        for name, gain in over.items():
            tell(f"{'over ' + name + ':':22} {gain.mean}")
        if len(self.setting.tasks) > 1 and over:
            tell("each label by itself: summary.json")
        tell(f"run:     {run.path}")
        tell(f"weights: {run.path / BEST}")

    def _baselines(self) -> dict[str, Baseline]:
        setting, config = self.setting, self.config
        drawn = ""
        if config.baseline_images:
            each = " of each game" if setting.train.episodes else ""
            drawn = f", on at most {config.baseline_images:,} training images{each}"
        self.console.print(f"fitting the baselines{drawn}")
        # Another start than the trained one's, which is not to be judged by its own beginning.
        untrained = setting.make_encoder(config.seed + 1).to(self.trainer.device)
        return fit_baselines(
            untrained,
            setting.train,
            setting.test,
            setting.tasks,
            seed=config.seed,
            most=config.baseline_images,
        )

    def _gains(self, beside: Mapping[str, Baseline]) -> dict[str, Gains]:
        """What the last epoch's accuracy has over each baseline's."""
        setting = self.setting
        logits, labels = self.trainer.held_out_logits(self.trainer.evaluated)
        own = right_by_task(logits, labels)
        episodes = setting.test.episodes
        return {
            name: gains(own, baseline.right, labels, setting.tasks, episodes)
            for name, baseline in beside.items()
        }


def summarised(figures: Mapping[str, Any]) -> str:
    """Figures in a few words: ``loss 0.051, top-1 98.51%, top-5 100.00%``."""
    told = []
    if "train/loss" in figures:
        told.append(f"loss {figures['train/loss']:.4g}")
    for k in (1, 5):
        if f"test/top{k}" in figures:
            told.append(f"top-{k} {100 * figures[f'test/top{k}']:.2f}%")
    return ", ".join(told)


def _plain_names(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Figures under their names without the "test/" that groups them among others."""
    return {name.removeprefix("test/"): value for name, value in figures.items()}


def _run(training: Pretraining, purge_step: int | None) -> None:
    run, config = training.run, training.config
    threads = f"{config.num_threads} CPU thread{'s' * (config.num_threads != 1)}"
    device = describe_device(config.device)
    training.console.print(f"device: {device}, {config.precision}, {threads}", highlight=False)
    if config.precision == "tf32" and training.trainer.device.type != "cuda":
        training.console.print("--precision tf32 has no effect: a CPU computes in fp32")
    images = len(training.setting.train_labels)
    if images < config.batch_size:
        training.console.print(
            f"{images:,} training images do not fill --batch-size {config.batch_size}: an epoch is"
            " one update of all of them; a smaller --batch-size learns in more updates"
        )
    with closing(
        make_tracker(run, config.track, project=config.project, purge_step=purge_step)
    ) as tracker:
        training.tracker = tracker
        try:
            training.learn()
            training.finish()
        except KeyboardInterrupt:
            training.console.print(f"continue with --resume {in_shell(run.path)}")
            raise
