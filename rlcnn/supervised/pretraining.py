"""A pretraining of an encoder, from its configuration to its summary."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, get_args

from rich.console import Console

from envs.errors import UserError, first_line
from rlcnn.accelerate.devices import use_threads
from rlcnn.data.atari.options import LoadPolicies
from rlcnn.runs import lifecycle
from rlcnn.runs.commands import Facts
from rlcnn.runs.directory import RunDirectory, claimed_directory
from rlcnn.runs.files import write_atomic
from rlcnn.runs.lifecycle import Attempt, default_directory, new_run, open_to_resume
from rlcnn.runs.progress import make_console, print_line, waiting
from rlcnn.runs.tracking.tracker import RunCard
from rlcnn.selfsupervised.options import ObjectiveName
from rlcnn.supervised.comparison import Comparison, compare
from rlcnn.supervised.config import PretrainConfig, read_pretrain_config
from rlcnn.supervised.description import describe_pretraining, next_commands
from rlcnn.supervised.held_out_plots import write_held_out_plots
from rlcnn.supervised.setup import (
    PretrainingSetup,
    check_start,
    counted,
    describe,
    load_images,
)
from rlcnn.supervised.trainer import Trainer
from rlcnn.weights.load import BEST, LAST, load_into

RESUMABLE = lifecycle.RESUMABLE | {
    "epochs",
    "data_dir",
    "num_workers",
    "baselines",
    "baseline_images",
}
"""Options that may change on a resume: the run's length, where it runs and what it records."""


def pretrain(
    config: PretrainConfig,
    run_dir: Path | None = None,
    *,
    load_policies: LoadPolicies | None = None,
    console: Console | None = None,
    command: list[str] | None = None,
) -> Path:
    """Trains an encoder on labelled images or on sequences; returns the new run directory.

    Args:
        config: the run; every "auto" in it is resolved and the result written to ``config.json``.
        run_dir: its directory; by default one in ``runs/``, named after the configuration, with a
            number where another run has that name.
        load_policies: makes the policies of the configuration's ``players``.
        console: shows progress; by default standard error.
        command: the command line to note in ``config.json`` and ``attempts.json``; by default this
            process's.

    Raises:
        UserError: for anything that the user can correct, before anything is lost.
        TrainingStopped: a stop was requested, by Ctrl-C for example; a checkpoint was written.
    """
    config.validate()
    config = config.resolve()
    console = console or make_console()
    with (
        use_threads(config.num_threads),
        claimed_directory(run_dir, default_run_dir(config), console) as path,
    ):
        # Before games are played or files decoded, which takes minutes.
        check_start(config)
        with waiting(console, "loading images"):
            split = load_images(config, console.print, load_policies)
        setup = PretrainingSetup(config, split)
        encoder = setup.make_encoder(config.seed)
        report = load_into(encoder, config.weights) if config.weights != "none" else None
        trainer = setup.make_trainer(encoder)
        document = {"pretraining": config.to_json(), "data": describe(split)}
        with new_run(path, document, command) as run:
            Pretraining(run, setup, trainer, console).begin(report)
    return run.path


def resume_pretraining(
    run_dir: Path,
    changes: Mapping[str, Any] | None = None,
    *,
    load_policies: LoadPolicies | None = None,
    console: Console | None = None,
    command: list[str] | None = None,
) -> Path:
    """Resumes a run from its last whole checkpoint, exactly where that was written.

    ``changes`` are options that differ from the run's, of :data:`RESUMABLE`; more ``epochs`` extend
    a run, finished or not, and stretch the schedule over the new length. The other arguments and
    the result are as for :func:`pretrain`.

    Raises:
        UserError: the run is missing, damaged, in use or done, its data have changed, or a change
            is not possible.
        TrainingStopped: as :func:`pretrain`.
    """
    console = console or make_console()
    with open_to_resume(
        run_dir,
        changes,
        console,
        read_config=read_pretrain_config,
        resumable=RESUMABLE,
        length="epochs",
        unit="epochs",
    ) as resumed:
        run, config = resumed.run, resumed.config
        data = run.config["data"]
        with waiting(console, "loading images"):
            split = load_images(config, console.print, load_policies, data)
        if (now := describe(split)) != data:
            raise UserError(
                f"the images of {config.data} are not those that run {run_dir} learns from: it has"
                f" {counted(data)}, these are {counted(now)}"
            )
        setup = PretrainingSetup(config, split)
        encoder = setup.make_encoder(config.seed)
        # A checkpoint holds all weights: the file of the first ones may be gone by now.
        if resumed.checkpoint is None and config.weights != "none":
            load_into(encoder, config.weights)
        trainer = setup.make_trainer(encoder)
        Pretraining(run, setup, trainer, console).resume(resumed, command)
    return run_dir


def default_run_dir(config: PretrainConfig) -> Path:
    """``runs/pretrain-<data>-<encoder>-seed<N>-<time>``."""
    data = re.sub(r"[^\w.-]+", "-", config.data.rstrip("/").split("/")[-1].split(":")[-1])
    return default_directory(f"pretrain-{data}", config.encoder, config.seed)


class Pretraining(Attempt[PretrainConfig]):
    """One attempt at a pretraining, with its evaluations and weights files."""

    section = "pretraining"

    def __init__(
        self, run: RunDirectory, setup: PretrainingSetup, trainer: Trainer, console: Console
    ) -> None:
        super().__init__(run, setup.config, console)
        self.setup, self.trainer = setup, trainer
        self._best: dict[str, Any] | None = None
        self._last: dict[str, Any] | None = None
        self._metrics = ""

    @property
    def step(self) -> int:
        """Updates."""
        return self.trainer.step

    @property
    def progress(self) -> tuple[int, int]:
        """Images, or sequences, and those of the whole run."""
        trainer, per_epoch = self.trainer, len(self.trainer.train)
        done = trainer.epoch * per_epoch + trainer.batch * self.config.batch_size
        return done, self.config.epochs * per_epoch

    def facts(self) -> Facts:
        return describe_pretraining(self.config, self.setup, self.trainer)

    def describe(self) -> list[str]:
        config, images = self.config, len(self.trainer.train)
        lines = config.notes_on_mode()
        if config.precision == "tf32" and self.trainer.device.type != "cuda":
            lines.append("--precision tf32 has no effect: a CPU computes in fp32")
        if images < config.batch_size:
            lines.append(
                f"{images:,} training images do not fill --batch-size {config.batch_size}: an epoch"
                " is one update of all of them; a smaller --batch-size learns in more updates"
            )
        return lines

    @property
    def card(self) -> RunCard:
        config = self.config
        names = (config.data, config.encoder, config.recipe)
        return RunCard(config.to_json(), "pretrain", group="-".join(names), tags=names)

    def model_files(self) -> list[Path]:
        return [self.run.path / name for name in (BEST, LAST, "summary.json")]

    def load_checkpoint(self, directory: Path) -> float:
        trainer, epochs = self.trainer, self.config.epochs
        extra = trainer.restore(directory)
        self._best, self._last = extra["best"], extra["last"]
        self.console.print(f"resuming from epoch {trainer.epoch}, step {trainer.step:,}")
        if epochs < trainer.epoch + bool(trainer.batch):
            raise UserError(
                f"--epochs {epochs} is too few: the run is in epoch {trainer.epoch + 1} already"
            )
        return float(extra["wall_seconds"])

    def write_checkpoint(self, directory: Path) -> None:
        extra = {"wall_seconds": self.wall_seconds, "best": self._best, "last": self._last}
        self.trainer.save(directory, extra)
        if self._best is not None:
            write_atomic(directory / BEST, (self.run.path / BEST).read_bytes())

    def checkpoint_written(self) -> None:
        """Writes the weights as they are now, with their accuracy where it is known."""
        trainer = self.trainer
        evaluated = self._last is not None and self._last["epoch"] == trainer.epoch
        self._save_weights(LAST, self._last if evaluated and not trainer.batch else None)

    def restore_files(self, checkpoint: Path | None) -> None:
        """Restores the best weights: those in the run may be of updates that are repeated now."""
        if checkpoint and (checkpoint / BEST).exists():
            write_atomic(self.run.path / BEST, (checkpoint / BEST).read_bytes())
        else:
            (self.run.path / BEST).unlink(missing_ok=True)

    def learn(self) -> None:
        trainer, epochs, task = self.trainer, self.config.epochs, self.task
        done, _ = self.progress
        task.status = self._status()
        while trainer.epoch < epochs:
            began, before = time.monotonic(), done
            with closing(trainer.learn_epoch()) as updates:
                for images in updates:
                    done += images
                    if task.reach(done):
                        task.status = self._status()
                    self._stop_if_requested()
            # Reading the metrics waits until a GPU has done its last update.
            metrics = trainer.epoch_metrics()
            metrics = self._epoch_done(metrics, (done - before) / (time.monotonic() - began))
            self._metrics = in_words(metrics)
            task.done, task.status = done, self._status()
            print_line(self.console, f"epoch {trainer.epoch}/{epochs}: {self._metrics}")
            self._stop_if_requested()

    def _status(self) -> str:
        epochs = self.config.epochs
        epoch = f"epoch {min(epochs, self.trainer.epoch + 1)}/{epochs}"
        return f"{epoch}  {self._metrics}" if self._metrics else epoch

    def _stop_if_requested(self) -> None:
        if self.stop.requested:
            self.stop_here(f"after {self.step:,} updates")

    def _epoch_done(self, metrics: dict[str, float], images_per_second: float) -> dict[str, float]:
        """Evaluates, logs and saves an epoch where the configuration says so; all its metrics."""
        trainer, config = self.trainer, self.config
        over = trainer.epoch == config.epochs
        if over or trainer.epoch % config.eval_every == 0:
            metrics = metrics | self._evaluate()
        row = {"epoch": trainer.epoch, **metrics, "time/images_per_second": images_per_second}
        self.tracker.log(trainer.step, row)
        if over or (config.checkpoint_every and trainer.epoch % config.checkpoint_every == 0):
            self.checkpoint()
        return metrics

    def _evaluate(self) -> dict[str, float]:
        """The metrics on the held-out images; keeps the weights if they are the best so far.

        Without a classifier the last ones count as the best: a low loss may mean that all features
        are equal.
        """
        with self.task.activity("evaluating"):
            metrics = self.trainer.evaluate()
        self._last = {"epoch": self.trainer.epoch, **metrics}
        best = (self._best or {}).get("test/top1")
        if best is None or metrics["test/top1"] > best:
            self._best = self._last
            self._save_weights(BEST, self._best)
        return metrics

    def _save_weights(self, name: str, metrics: Mapping[str, Any] | None) -> None:
        # What the images were and how they were prepared, for an evaluation without the run.
        kept = ("data", "recipe", "colours", "augment", "frames", "players", "seed", "objectives")
        options = self.config.to_json()
        about = {
            **{name: options[name] for name in kept},
            "run": str(self.run.path.resolve()),
            "epoch": self.trainer.epoch,
            "step": self.trainer.step,
            "accuracy": _plain_names(metrics or {}),
        }
        self.trainer.evaluated.save(self.run.path / name, about)

    def finish(self) -> Facts:
        run, trainer = self.run, self.trainer
        if self._last is None or self._last["epoch"] != trainer.epoch:
            # The last epoch was not evaluated, since only a resume made it the last.
            self._evaluate()
        assert self._last is not None
        assert self._best is not None
        compared = Comparison(None, {}, {})
        if self.config.baselines == "on":
            with self.task.activity("fitting baselines"):
                compared = compare(self.setup, trainer, self.console.print)
        probe, baselines, over = compared
        run.write_summary(
            {
                "epochs": trainer.epoch,
                "steps": trainer.step,
                "wall_seconds": self.wall_seconds,
                "images_per_second": trainer.epoch * len(trainer.train) / self.wall_seconds,
                "parameters": sum(p.numel() for p in trainer.network.parameters()),
                "test": {"last": _plain_names(self._last), "best": _plain_names(self._best)},
                "probe": probe and _plain_names(probe.figures),
                "baselines": {k: _plain_names(v.figures) for k, v in baselines.items()} or None,
                "gains": {k: v.to_json() for k, v in over.items()} or None,
                "weights": {"best": BEST, "last": LAST},
            }
        )
        self._track_plots()
        facts = [("last epoch", in_words(self._last))]
        if "test/top1" in self._best:
            epoch = self._best["epoch"]
            facts.append(("best epoch", f"{in_words(self._best)} (epoch {epoch})"))
        if probe is not None:
            facts.append(("linear probe", in_words(probe.figures)))
        facts += [(name, in_words(one.figures)) for name, one in baselines.items()]
        facts += [(f"over {name}", str(gain.mean)) for name, gain in over.items()]
        if len(self.setup.train.images.tasks) > 1 and over:
            facts.append(("each label", str(run.path / "summary.json")))
        return [*facts, ("run", str(run.path)), ("weights", str(run.path / BEST))]

    def next_commands(self) -> Facts:
        return next_commands(self.config, self.run, self.trainer.network.encoder)

    def _track_plots(self) -> None:
        if self.config.track == "disabled":
            return
        try:
            plots = write_held_out_plots(self.trainer, self.setup.test, self.run.path / "plots")
            images = {f"plots/{path.stem}": path for path in plots}
            self.tracker.images(self.step, images)
        except Exception as error:
            print_line(self.console, f"no plots of the errors: {first_line(error)}")


def in_words(metrics: Mapping[str, Any]) -> str:
    """Metrics in a few words: ``loss 0.051, top-1 98.51%, top-5 100.00%``.

    Of each objective on sequences it names the held-out loss, and the accuracy if it has one.
    """
    words = []
    if "train/loss" in metrics:
        words.append(f"loss {metrics['train/loss']:.4g}")
    for name in get_args(ObjectiveName):
        if f"test/{name}" in metrics:
            words.append(f"held-out {name} {metrics[f'test/{name}']:.4g}")
        if f"test/{name}/top1" in metrics:
            words[-1] += f" (top-1 {100 * metrics[f'test/{name}/top1']:.2f}%)"
    for k in (1, 5):
        if f"test/top{k}" in metrics:
            words.append(f"top-{k} {100 * metrics[f'test/top{k}']:.2f}%")
    return ", ".join(words)


def _plain_names(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics under their names without the prefix "test/"."""
    return {name.removeprefix("test/"): value for name, value in metrics.items()}
