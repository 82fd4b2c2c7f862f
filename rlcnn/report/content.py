"""The content of a study's report, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rlcnn.report.comparison import Comparison
from rlcnn.report.curves import RunCurve
from rlcnn.stats import TransferMetrics, Verdict

State = Literal["done", "failed", "begun", "waiting"]


@dataclass(frozen=True)
class NamedRun:
    """A run of a study, by its game (its name for people, "Pong"), arm and seed."""

    game: str
    arm: str
    seed: int

    @property
    def name(self) -> str:
        """Game, arm and seed, for people."""
        return f"{self.game}, {self.arm}, seed {self.seed}"


@dataclass(frozen=True)
class RunResult(NamedRun):
    """A run of a study and its state; a figure is None as long as it is unknown.

    Attributes:
        state: "done" (took all its steps and was evaluated), "failed", "begun" or "waiting".
        score: mean return of the last agent over ``episodes`` whole games; ``std`` of these.
        steps: agent steps taken so far.
        wall_seconds: time of all attempts together.
        best_game: the largest return of a game of the evaluation that gave the score.
        reason: why it failed, or empty.
        directory: of the run, within the study's.
    """

    state: State
    score: float | None = None
    std: float | None = None
    episodes: int | None = None
    steps: int = 0
    wall_seconds: float | None = None
    steps_per_second: float | None = None
    reason: str = ""
    directory: str = ""
    best_game: float | None = None

    def is_dead(self, random: float | None) -> bool:
        """Whether no game of the last agent had more points than ``random`` play has on average."""
        return None not in (random, self.best_game) and self.best_game <= random  # type: ignore[operator]


@dataclass(frozen=True)
class ArmFacts:
    """An arm and its encoder, with options.

    ``mode`` is how it is trained, such as "fine-tuned at 0.1 of the learning rate". ``origin`` and
    ``cost`` of the weights are one line each, empty for initial weights. ``full`` is the arm as
    the command gave it, if ``name`` is a shorter label.
    """

    name: str
    encoder: str
    mode: str
    origin: str = ""
    cost: str = ""
    full: str = ""


@dataclass(frozen=True)
class Levels:
    """Returns to compare with in a game; None if unknown."""

    random: float | None = None
    human: float | None = None


@dataclass(frozen=True)
class Transfer:
    """The gain of an arm over the control, for one way to count its cost.

    ``spent`` names for people what is counted: "agent steps", "wall time with pretraining". Times
    to the threshold and budgets are in ``unit``, "steps" or "seconds". ``missing`` says why there
    are no ``metrics``.
    """

    arm: str
    spent: str
    unit: str
    metrics: TransferMetrics | None
    missing: str = ""


@dataclass(frozen=True)
class Film:
    """A game that an agent played.

    ``caption`` says in one line which run it shows, ``strip`` is a PNG of its pictures side by
    side, empty if the film cannot be read, and ``address`` is its path relative to the page.
    ``first`` films are shown beside the verdict: those of failed and dead runs. A film of all arms
    side by side has an empty ``arm``.
    """

    game: str
    arm: str
    caption: str
    strip: bytes = b""
    path: Path | None = None
    address: str = ""
    first: bool = False

    @property
    def name(self) -> str:
        """Game and arm, for people."""
        return f"{self.game}, {self.arm or 'all arms side by side'}"

    @property
    def key(self) -> str:
        """What no other film of a report has, for names of files."""
        return f"{self.game}/{self.arm or 'side by side'}{' odd' if self.first else ''}"


@dataclass(frozen=True)
class Report:
    """All that a page shows; parts that a study in progress lacks are empty.

    Attributes:
        arms: in order, which sets their colours.
        runs: every run, in whatever state.
        verdicts: one for each arm but the control.
        no_verdict: why there are none, in one line.
        notes: limits of the scores behind the verdicts.
        unit: name of a normalised score.
        comparison: None if runs are missing.
        curves: game -> arm -> learning curve of each run, in returns.
        curves_of: source of the curves, for people.
        threshold: the normalised score of the times to the threshold in ``transfer``.
        films: at most one for each game and arm.
        facts: versions, machine and options, by name.
        command: repeats the study.
    """

    title: str
    games: tuple[str, ...]
    arms: tuple[ArmFacts, ...]
    control: str
    runs: tuple[RunResult, ...]
    verdicts: tuple[Verdict, ...] = ()
    no_verdict: str = ""
    notes: tuple[str, ...] = ()
    unit: str = "score"
    comparison: Comparison | None = None
    curves: Mapping[str, Mapping[str, tuple[RunCurve, ...]]] = field(default_factory=dict)
    curves_of: str = ""
    levels: Mapping[str, Levels] = field(default_factory=dict)
    transfer: tuple[Transfer, ...] = ()
    threshold: float | None = None
    transfer_notes: tuple[str, ...] = ()
    films: tuple[Film, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    command: str = ""

    @property
    def arm_names(self) -> list[str]:
        """Names of the arms, in order."""
        return [arm.name for arm in self.arms]

    def level_of(self, game: str) -> Levels:
        """Returns of random play and of a human in a game."""
        return self.levels.get(game, Levels())

    def oddity(self, run: RunResult) -> Literal["failed", "dead", ""]:
        """Whether a run failed or is dead, which a reader should see first."""
        if run.state == "failed":
            return "failed"
        return "dead" if run.is_dead(self.level_of(run.game).random) else ""

    def runs_of(self, game: str, arm: str) -> list[RunResult]:
        """The runs of an arm in a game, seed by seed."""
        return [run for run in self.runs if (run.game, run.arm) == (game, arm)]
