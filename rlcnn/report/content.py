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
class RunResult:
    """A run of a study and its state; figures are None as long as they are unknown.

    Attributes:
        game: name for people, "Pong".
        arm: name of the arm.
        seed: of the training.
        state: "done" (took all its steps and was evaluated), "failed", "begun" or "waiting".
        score: mean return of the last agent over whole games.
        std: standard deviation of these returns.
        episodes: number of these games.
        steps: agent steps taken so far.
        wall_seconds: time of all attempts together.
        steps_per_second: of the training.
        reason: why it failed, or empty.
        directory: of the run, within the study's.
    """

    game: str
    arm: str
    seed: int
    state: State
    score: float | None = None
    std: float | None = None
    episodes: int | None = None
    steps: int = 0
    wall_seconds: float | None = None
    steps_per_second: float | None = None
    reason: str = ""
    directory: str = ""

    @property
    def name(self) -> str:
        """Game, arm and seed, for people."""
        return f"{self.game}, {self.arm}, seed {self.seed}"


@dataclass(frozen=True)
class ArmFacts:
    """An arm and its encoder; ``origin`` and ``cost`` are empty for initial weights.

    Attributes:
        name: of the arm.
        encoder: the network, with its options.
        mode: how it is trained: "trained", "frozen", "fine-tuned at 0.1 of the learning rate".
        origin: where its weights come from, in one line.
        cost: what making these weights cost, in one line.
    """

    name: str
    encoder: str
    mode: str
    origin: str = ""
    cost: str = ""


@dataclass(frozen=True)
class Levels:
    """Returns to compare with in a game; None if unknown."""

    random: float | None = None
    human: float | None = None


@dataclass(frozen=True)
class Transfer:
    """The gain of an arm over the control, for one way to count its cost.

    Attributes:
        arm: the treatment.
        spent: what is counted, for people: "agent steps", "wall time with pretraining".
        unit: of times to the threshold and of budgets: "steps" or "seconds".
        metrics: the figures; None if they cannot be computed.
        missing: why they cannot be computed.
    """

    arm: str
    spent: str
    unit: str
    metrics: TransferMetrics | None
    missing: str = ""


@dataclass(frozen=True)
class Film:
    """A game that an agent played.

    Attributes:
        game: name for people.
        arm: name of the arm.
        caption: which run it shows, in one line.
        strip: a PNG of its pictures side by side; empty if the film cannot be read.
        path: the film; None if there is none.
        address: its path relative to the page.
    """

    game: str
    arm: str
    caption: str
    strip: bytes = b""
    path: Path | None = None
    address: str = ""


@dataclass(frozen=True)
class Report:
    """All that a page shows; parts that a study in progress lacks are empty.

    Attributes:
        title: of the page.
        games: names, in order.
        arms: in order, which sets their colours.
        control: the arm that the others are compared with.
        runs: every run, in whatever state.
        verdicts: one for each arm but the control.
        no_verdict: why there are none, in one line.
        notes: limits of the scores behind the verdicts.
        unit: name of a normalised score.
        comparison: aggregates of the scores; None if runs are missing.
        curves: game -> arm -> learning curve of each run, in returns.
        curves_of: source of the curves, for people.
        levels: of each game.
        transfer: rows of the table of transfer.
        threshold: the normalised score of its time to the threshold.
        transfer_notes: limits of that table.
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

    def runs_of(self, game: str, arm: str) -> list[RunResult]:
        """The runs of an arm in a game, seed by seed."""
        return [run for run in self.runs if (run.game, run.arm) == (game, arm)]
