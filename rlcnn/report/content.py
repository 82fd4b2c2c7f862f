"""What the report of a study shows, as plain data."""

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
    """A run of a study as it stands.

    Attributes:
        game: for people, "Pong".
        arm: name of the arm.
        seed: the training's.
        state: "done" (took all its steps and was judged), "failed", "begun" or "waiting".
        score: mean return of whole games, played by the agent of the last step; None before that.
        std: standard deviation of these returns.
        episodes: how many games these were.
        steps: agent steps taken so far.
        wall_seconds: time of the run's own, over all attempts; None before its end.
        steps_per_second: of its training; None before its end.
        reason: why it failed; else empty.
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
    """What an arm is.

    Attributes:
        name: of the arm.
        encoder: the network, with its options.
        mode: how it is trained: "trained", "frozen", "fine-tuned at 0.1 of the learning rate".
        origin: where its weights came from, in one line; empty where it starts from initial values.
        cost: what making these weights had cost, in one line; empty likewise.
    """

    name: str
    encoder: str
    mode: str
    origin: str = ""
    cost: str = ""


@dataclass(frozen=True)
class Levels:
    """Returns to compare with in a game; None where they are not known."""

    random: float | None = None
    human: float | None = None


@dataclass(frozen=True)
class Transfer:
    """What an arm gained over the control, by one way of counting what was spent.

    Attributes:
        arm: the treatment.
        spent: what is counted, for people: "agent steps", "wall time with pretraining".
        unit: of times to the threshold and of budgets: "steps" or "seconds".
        metrics: the figures; None where they cannot be had.
        missing: why not.
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
        game: for people.
        arm: name of the arm.
        caption: which run it shows, in one line.
        strip: pictures of it side by side, a PNG; empty where the film cannot be read.
        path: the film; None where there is none.
        address: its path as seen from the page.
    """

    game: str
    arm: str
    caption: str
    strip: bytes = b""
    path: Path | None = None
    address: str = ""


@dataclass(frozen=True)
class Report:
    """All that a page shows; what a study in progress lacks is empty.

    Attributes:
        title: of the page.
        games: names, in order.
        arms: in order; their colours follow from it.
        control: the arm that the others are judged by.
        runs: every run, whatever became of it.
        verdicts: of each arm but the control.
        no_verdict: why there are none, in one line.
        notes: what is to be known of the scores that the verdicts rest on.
        unit: what a normalised score is called.
        comparison: aggregates of the scores; None where runs are missing.
        curves: game -> arm -> learning curve of each run, in returns.
        curves_of: what the curves are means of, for people.
        levels: of each game.
        transfer: rows of its table.
        threshold: the normalised score whose time is told in it.
        transfer_notes: what is to be known of that table.
        films: at most one for each game and arm.
        facts: what the study was made with, by name.
        command: that repeats it.
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
