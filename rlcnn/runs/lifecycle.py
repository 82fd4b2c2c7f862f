"""The lifecycle of a run, whatever it trains: start or resume, learn, stop, finish."""

from __future__ import annotations

import dataclasses
import re
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NoReturn, Protocol, Self, TypeVar

from rich.console import Console

from envs.errors import EnvironmentFailure, UserError, in_shell
from rlcnn.accelerate.devices import use_threads
from rlcnn.runs.commands import Facts, commands_for_curves
from rlcnn.runs.directory import RunDirectory
from rlcnn.runs.files import write_json_atomic
from rlcnn.runs.progress import ProgressDisplay, Task, print_facts
from rlcnn.runs.provenance import provenance
from rlcnn.runs.stopping import StopRequest, TrainingStopped, handle_signals
from rlcnn.runs.tracker import RunCard, Service, Tracker, summary_of
from rlcnn.runs.tracking import make_tracker

if TYPE_CHECKING:
    # It needs this package.
    from rlcnn.weights.report import LoadReport

RESUMABLE = frozenset(
    {
        "device",
        "num_threads",
        "eval_every",
        "checkpoint_every",
        "keep_checkpoints",
        "track",
        "tracker",
        "project",
        "log_model",
    }
)
"""Options of every training that may change on a resume: where it runs and what it records."""


class RunConfig(Protocol):
    """The options that every kind of training has."""

    @property
    def num_threads(self) -> int: ...
    @property
    def keep_checkpoints(self) -> int: ...
    @property
    def track(self) -> Any: ...
    @property
    def tracker(self) -> Service: ...
    @property
    def project(self) -> str: ...
    @property
    def log_model(self) -> bool: ...
    def validate(self) -> None: ...
    def resolve(self) -> Self: ...
    def to_json(self) -> dict[str, Any]: ...


Config = TypeVar("Config", bound=RunConfig)


@dataclasses.dataclass(frozen=True)
class Resume(Generic[Config]):
    """A run about to be resumed.

    Attributes:
        run: held for writing; nothing in it has changed yet.
        before: the configuration of the last attempt.
        asked: the configuration with the changes, as the user gave it.
        config: the same with every "auto" resolved.
        checkpoint: the newest whole one; None for a run that was killed before its first.
    """

    run: RunDirectory
    before: Config
    asked: Config
    config: Config
    checkpoint: Path | None


class Attempt(ABC, Generic[Config]):
    """One attempt at a run. Each kind of training defines the abstract methods.

    :meth:`begin` or :meth:`resume` does the whole attempt.

    Attributes:
        run: the run directory, held for writing.
        config: the options, resolved.
        console: shows progress.
        notes: lines to print before learning begins.
        tracker: records metrics and films; exists while the attempt learns and finishes.
        task: shows progress; exists as long as the tracker.
        stop: the request to stop; long actions call its ``check``.
        saved_step: the step of the last checkpoint; None while there is none.
    """

    section: ClassVar[str]
    """Key of the options in ``config.json``."""

    tracker: Tracker
    task: Task

    def __init__(
        self, run: RunDirectory, config: Config, console: Console, notes: Sequence[str] = ()
    ) -> None:
        self.run, self.config, self.console, self.notes = run, config, console, notes
        self.stop = StopRequest(console.print)
        self.saved_step: int | None = None
        self._seconds_before = 0.0
        self._began = time.monotonic()

    @property
    @abstractmethod
    def step(self) -> int:
        """The step up to which the run has learned; names its checkpoint."""

    @property
    @abstractmethod
    def progress(self) -> tuple[int, int]:
        """How much is learned and how much is to be, in the display's unit."""

    @abstractmethod
    def facts(self) -> Facts:
        """What is about to be trained, to print before learning begins."""

    @abstractmethod
    def describe(self) -> Iterable[str]:
        """More notes, which depend on where learning begins."""

    @property
    @abstractmethod
    def card(self) -> RunCard:
        """How the run appears beside others in a tracker."""

    @abstractmethod
    def model_files(self) -> Iterable[Path]:
        """Weights and JSON files of the trained model, for ``log_model``."""

    @abstractmethod
    def learn(self) -> None:
        """Trains to the configured length and writes a checkpoint there.

        Raises:
            EnvironmentFailure: an environment raised an error.
            TrainingStopped: by :meth:`stop_here`.
        """

    @abstractmethod
    def finish(self) -> Facts:
        """Evaluates what was learned, writes the summary, and returns the results to print."""

    @abstractmethod
    def next_commands(self) -> Facts:
        """What to do with the finished run, and the commands for it."""

    @abstractmethod
    def write_checkpoint(self, directory: Path) -> None:
        """Writes all that the next update depends on, :attr:`wall_seconds` among it."""

    @abstractmethod
    def load_checkpoint(self, directory: Path) -> float:
        """Restores what :meth:`write_checkpoint` wrote, and returns its wall seconds."""

    def checkpoint_written(self) -> None:
        """Called after each checkpoint, before old ones are removed."""

    def restore_files(self, checkpoint: Path | None) -> None:
        """Brings files of the run back to their state at ``checkpoint``, or at the start."""

    @property
    def wall_seconds(self) -> float:
        """Seconds spent on the run so far, over all attempts."""
        return self._seconds_before + time.monotonic() - self._began

    def begin(self, weights: LoadReport | None) -> None:
        """Does the first attempt; ``weights`` is the report on loaded initial weights, if any."""
        if weights:
            write_json_atomic(self.run.path / "weights.json", weights.to_json())
            self.notes = [str(weights), *self.notes]
        self._learn_and_finish(purge_step=None)

    def resume(self, resume: Resume[Config], command: list[str] | None = None) -> None:
        """Does a later attempt, from the checkpoint on; see :func:`open_to_resume`."""
        run, checkpoint = resume.run, resume.checkpoint
        if checkpoint:
            self._seconds_before = self.load_checkpoint(checkpoint)
            self.saved_step = self.step
        else:
            self.console.print("there is no checkpoint yet: beginning again")
        # The run on disk changes only now, when nothing of it can be refused any more.
        run.truncate_metrics(self.step if checkpoint else -1)
        self.restore_files(checkpoint)
        run.begin_attempt(attempt_metadata(command))
        if self.config != resume.before:
            run.update_config({self.section: self.config.to_json()})
        self._learn_and_finish(purge_step=self.step + 1 if checkpoint else 0)

    def checkpoint(self) -> None:
        """Writes a checkpoint of the current step and removes old ones.

        Raises:
            UserError: there is no room for it, or a parameter is no longer a finite number.
        """
        step = self.step
        with self.task.activity("saving a checkpoint"), self.run.new_checkpoint(step) as directory:
            self.write_checkpoint(directory)
        self.saved_step = step
        self.checkpoint_written()
        self.run.prune(self.config.keep_checkpoints)

    def stop_here(self, where: str) -> NoReturn:
        """Writes a checkpoint, if needed, and raises TrainingStopped; ``where`` is "at step 5"."""
        if self.step != self.saved_step:
            self.checkpoint()
        raise TrainingStopped(f"stopped {where}; go on with --resume {in_shell(self.run.path)}")

    def _learn_and_finish(self, purge_step: int | None) -> None:
        run, config, console = self.run, self.config, self.console
        service = "W&B" if config.tracker == "wandb" else config.tracker
        tracked = f"{service} {config.track}, TensorBoard {in_shell(run.tb_dir)}"
        notes = [("note", line) for line in (*self.notes, *self.describe())]
        print_facts(console, [*self.facts(), ("tracking", tracked), *notes], wrapped=True)
        done, total = self.progress
        # A service on the network may take long to start, and to upload in the end.
        with ProgressDisplay(console) as display:
            self.task = display.add("training", total, done)
            with self.task.activity("starting the tracker"):
                self.tracker = make_tracker(
                    run,
                    config.track,
                    config.tracker,
                    card=self.card,
                    project=config.project,
                    purge_step=purge_step,
                )
            try:
                with handle_signals(self.stop.handle):
                    self.learn()
                results = self.finish()
                if config.log_model:
                    about = {"options": self.card.options, **summary_of(run)}
                    self.tracker.model([*self.model_files(), run.path / "config.json"], about)
            except EnvironmentFailure as error:
                kept = "Nothing was learned yet"
                if self.saved_step is not None:
                    kept = f"The run has a checkpoint of step {self.saved_step:,}"
                way_on = f"{kept}: go on with --resume {in_shell(run.path)}"
                raise EnvironmentFailure(f"{error}. {way_on}") from error
            except KeyboardInterrupt:
                display.close()
                console.print(f"continue with --resume {in_shell(run.path)}")
                raise
            finally:
                with self.task.activity("closing the tracker"):
                    self.tracker.close()
        print_facts(console, results)
        print_facts(console, [*self.next_commands(), *commands_for_curves(run, config.project)])


@contextmanager
def new_run(
    path: Path, document: dict[str, Any], command: list[str] | None
) -> Iterator[RunDirectory]:
    """A new run in its first attempt, held for writing inside the block.

    ``path`` comes from :func:`rlcnn.runs.directory.claimed_directory`; ``document`` and the
    attempt's metadata are written to ``config.json``. A UserError refuses a directory that is not
    empty or cannot be written.
    """
    metadata = attempt_metadata(command)
    with RunDirectory.create(path, {**document, **metadata}) as run:
        run.begin_attempt(metadata)
        yield run


@contextmanager
def open_to_resume(
    run_dir: Path,
    changes: Mapping[str, Any] | None,
    console: Console,
    *,
    read_config: Callable[[RunDirectory], Config],
    resumable: frozenset[str],
    length: str,
    unit: str,
) -> Iterator[Resume[Config]]:
    """A run to be resumed, held for writing inside the block, with torch's threads set.

    Args:
        run_dir: the run.
        changes: options that differ from the run's.
        console: shows which checkpoints are broken.
        read_config: reads the options of a run.
        resumable: options that may change.
        length: the option that says how long the run is.
        unit: what it counts, which is its key in the summary.

    Raises:
        UserError: the run is missing, damaged, in use or done, or a change is not possible.
    """
    with RunDirectory.open(run_dir, write=True) as run:
        before = read_config(run)
        asked = apply_resume_changes(before, changes or {}, resumable)
        asked.validate()
        config = asked.resolve()
        summary = run.summary()
        done = summary.get(unit, 0) if summary is not None else -1
        if done >= getattr(config, length):
            longer = 2 * max(done, getattr(before, length))
            raise UserError(
                f"run {run_dir} is done: it took its {done:,} {unit}."
                f" Extend it with --{length.replace('_', '-')} {longer}"
            )
        print_facts(console, [("run", str(run_dir))])
        run.recover()
        checkpoint = newest_checkpoint(run, console)
        with use_threads(config.num_threads):
            yield Resume(run, before, asked, config, checkpoint)


def attempt_metadata(command: list[str] | None) -> dict[str, Any]:
    """The command line (by default this process's) and the provenance, to note with an attempt."""
    return {"command": command or sys.argv, "provenance": provenance()}


def apply_resume_changes(
    config: Config, changes: Mapping[str, Any], resumable: frozenset[str]
) -> Config:
    """A run's configuration, a dataclass, with a resume's changes.

    Raises:
        UserError: a changed option is not in ``resumable``.
    """
    for name, value in changes.items():
        if name not in resumable:
            option, old, new = _first_difference(name, getattr(config, name), value)
            raise UserError(
                f"--{option.replace('_', '-')} cannot change on a resume: the run has {old!r},"
                f" not {new!r}; begin a new run from its config.json with --config"
            )
    return dataclasses.replace(config, **changes)  # type: ignore[type-var]


def _first_difference(name: str, old: Any, new: Any) -> tuple[str, Any, Any]:
    """The option that differs, and its values, where ``name`` may be a section of options."""
    if dataclasses.is_dataclass(old):
        for field in dataclasses.fields(old):
            pair = getattr(old, field.name), getattr(new, field.name)
            if pair[0] != pair[1]:
                return f"{name}.{field.name}", *pair
    return name, old, new


def newest_checkpoint(run: RunDirectory, console: Console) -> Path | None:
    """The last whole checkpoint, or None for a run that was killed before its first.

    Raises:
        UserError: there are checkpoints, but none is whole.
    """
    checkpoint, broken = run.latest_whole()
    for flawed in broken:
        console.print(f"checkpoint {flawed.path} is skipped: {flawed.reason}")
    if checkpoint is None and broken:
        raise UserError(
            f"no checkpoint of run {run.path} is whole; begin a new run with"
            f" --config {in_shell(run.path / 'config.json')}"
        )
    return checkpoint


def default_directory(name: str, encoder: str, seed: int) -> Path:
    """``runs/<name>-<encoder>-seed<N>-<time>``."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"{name}-{re.sub(r'[:/]', '-', encoder)}-seed{seed}-{stamp}"
