"""The lifecycle of a run whose training only counts: attempts, stops, resumes, failures."""

from __future__ import annotations

import io
import json
import signal
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from envs.errors import EnvironmentFailure, UserError, in_shell
from rlcnn.runs import lifecycle
from rlcnn.runs.commands import Facts, commands_for_curves, script
from rlcnn.runs.directory import RunDirectory, claimed_directory
from rlcnn.runs.lifecycle import Attempt, default_directory, new_run, open_to_resume
from rlcnn.runs.progress import ProgressDisplay
from rlcnn.runs.stopping import TrainingStopped
from rlcnn.runs.tracker import TRACKIO_NAME, RunCard, Tracker


@dataclass(frozen=True)
class Config:
    """Options of a training that counts."""

    length: int = 4
    seed: int = 0
    num_threads: int = 1
    keep_checkpoints: int = 2
    track: Any = "disabled"
    tracker: Any = "wandb"
    project: str = "rlcnn"
    log_model: bool = False

    def validate(self) -> None:
        if self.length < 1:
            raise UserError(f"--length {self.length} must be at least 1")

    def resolve(self) -> Config:
        return self

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Counting(Attempt[Config]):
    """Counts to ``length``; ``at_step`` has an exception, or signals, to be raised after a step."""

    section = "counting"
    at_step: dict[int, Any] = {}  # noqa: RUF012
    count = 0

    @property
    def step(self) -> int:
        return self.count

    @property
    def card(self) -> RunCard:
        return RunCard()

    def model_files(self) -> list[Path]:
        return []

    @property
    def progress(self) -> tuple[int, int]:
        return self.count, self.config.length

    def facts(self) -> Facts:
        return [("numbers", "natural")]

    def next_commands(self) -> Facts:
        return [("evaluate", "count --again")]

    def describe(self) -> list[str]:
        return [f"counting from {self.count}"]

    def write_checkpoint(self, directory: Path) -> None:
        (directory / "count").write_text(f"{self.count} {self.wall_seconds}")

    def load_checkpoint(self, directory: Path) -> float:
        count, seconds = (directory / "count").read_text().split()
        self.count = int(count)
        return float(seconds)

    def learn(self) -> None:
        while self.count < self.config.length:
            self.count += 1
            self.tracker.log(self.count, {"count": self.count})
            event = self.at_step.get(self.count, ())
            if isinstance(event, BaseException):
                raise event
            for number in event:
                signal.raise_signal(number)
            if self.stop.requested:
                self.stop_here(f"at {self.count}")
            if self.count % 2 == 0:
                self.checkpoint()

    def finish(self) -> Facts:
        self.run.write_summary({"steps": self.count, "seconds": self.wall_seconds})
        return [("counted to", str(self.count))]


def start(run_dir: Path | None, config: Config = Config(), default: Path = Path()) -> str:
    said = io.StringIO()
    console = Console(file=said, width=300)
    with (
        claimed_directory(run_dir, default, console) as path,
        new_run(path, {"counting": config.to_json()}, ["count"]) as run,
    ):
        Counting(run, config, console, ["a note"]).begin(None)
    return said.getvalue()


def resume(run_dir: Path, **changes: Any) -> str:
    said = io.StringIO()
    console = Console(file=said, width=300)
    with open_to_resume(
        run_dir,
        changes,
        console,
        read_config=lambda run: Config(**run.config["counting"]),
        resumable=lifecycle.RESUMABLE | {"length"},
        length="length",
        unit="steps",
    ) as resumed:
        Counting(resumed.run, resumed.config, console).resume(resumed, ["count", "--resume"])
    return said.getvalue()


def counts(run_dir: Path) -> list[int]:
    return [row["count"] for row in RunDirectory.open(run_dir).metrics()]


def checkpoints(run_dir: Path) -> list[int]:
    return [int(path.name) for path in RunDirectory.open(run_dir).checkpoints()]


@pytest.fixture
def at_step(monkeypatch: pytest.MonkeyPatch) -> dict[int, Any]:
    events: dict[int, Any] = {}
    monkeypatch.setattr(Counting, "at_step", events)
    return events


def test_a_run_has_one_attempt_and_a_summary(tmp_path: Path) -> None:
    said = start(tmp_path / "run")
    tb = tmp_path / "run" / "tb"
    assert said.splitlines() == [
        f"run:         {tmp_path / 'run'}",
        "numbers:     natural",
        f"tracking:    W&B disabled, TensorBoard {tb}",
        "note:        a note",
        "note:        counting from 0",
        "counted to:  4",
        "evaluate:    count --again",
        f"TensorBoard: tensorboard --logdir {tb}",
    ]
    assert counts(tmp_path / "run") == [1, 2, 3, 4]
    assert checkpoints(tmp_path / "run") == [2, 4]
    run = RunDirectory.open(tmp_path / "run")
    assert run.attempts == 1
    assert run.summary() == {**(run.summary() or {}), "steps": 4}
    (attempt,) = json.loads((run.path / "attempts.json").read_text())["attempts"]
    for name in ("command", "provenance"):
        assert attempt[name] == run.config[name]


def test_the_display_is_alive_while_the_tracker_starts_and_closes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    displays: list[ProgressDisplay] = []
    seen: list[str] = []

    class Display(ProgressDisplay):
        def __init__(self, console: Console) -> None:
            super().__init__(console)
            displays.append(self)

    def look() -> None:
        (display,) = displays
        assert not display._closed.is_set()
        seen.append(display.line().split("  ")[0])

    class Service(Tracker):
        def __init__(self, *_: Any, **__: Any) -> None:
            look()

        def close(self) -> None:
            look()

    monkeypatch.setattr(lifecycle, "ProgressDisplay", Display)
    monkeypatch.setattr(lifecycle, "make_tracker", Service)
    start(tmp_path / "run")
    assert seen == ["starting the tracker", "closing the tracker"]


def test_the_dashboard_of_trackio_is_named_where_it_shows_the_run(tmp_path: Path) -> None:
    start(tmp_path / "run")
    run = RunDirectory.open(tmp_path / "run")
    assert "dashboard" not in dict(commands_for_curves(run, "my games"))
    (run.path / TRACKIO_NAME).write_text("{}")
    commands = dict(commands_for_curves(run, "my games"))
    assert commands["dashboard"] == "trackio show --project 'my games'"


def test_the_default_directory_gets_a_number_where_it_is_taken(tmp_path: Path) -> None:
    start(None, default=tmp_path / "run")
    start(None, default=tmp_path / "run")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "run-2"]
    with pytest.raises(UserError, match="not empty"):
        start(tmp_path / "run")
    assert default_directory("pong-ppo", "timm:a/b", 7).name.startswith("pong-ppo-timm-a-b-seed7-")


def test_a_run_is_named_before_it_is_built_and_leaves_nothing_if_it_cannot_be(
    tmp_path: Path,
) -> None:
    said, names = io.StringIO(), []

    def fail(run_dir: Path | None, *others: Path | None) -> None:
        with claimed_directory(
            run_dir, tmp_path / "runs" / "run", Console(file=said, width=300)
        ) as path:
            names.append(path)
            assert said.getvalue().splitlines()[-1] == f"run:         {path}"
            # Other runs that begin meanwhile get other names.
            if others:
                fail(*others)
            raise UserError("the images are too small")

    for run_dirs in ([None, None], [None], [tmp_path / "mine"]):
        with pytest.raises(UserError, match="too small"):
            fail(*run_dirs)
    assert [path.name for path in names] == ["run", "run-2", "run", "mine"]
    assert list(tmp_path.iterdir()) == []


def test_a_directory_of_the_users_own_stays_if_no_run_can_be_built(tmp_path: Path) -> None:
    with (
        pytest.raises(UserError),
        claimed_directory(tmp_path, tmp_path, Console(quiet=True)),
    ):
        raise UserError("the images are too small")
    assert tmp_path.exists()


def test_commands_are_ready_to_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", [str(tmp_path / "train_agent.py")])
    assert script("evaluate_agent.py") == "python scripts/evaluate_agent.py"
    (tmp_path / "evaluate_agent.py").touch()
    assert script("evaluate_agent.py") == f"python {in_shell(tmp_path / 'evaluate_agent.py')}"
    offline = tmp_path / "my run" / "wandb" / "offline-run-20261128_000000-abc"
    learn = Counting.learn
    monkeypatch.setattr(Counting, "learn", lambda self: [offline.mkdir(parents=True), learn(self)])
    assert f"sync:        wandb sync '{offline}'" in start(tmp_path / "my run").splitlines()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_writes_a_checkpoint_and_says_how_to_go_on(
    number: signal.Signals, at_step: dict[int, Any], tmp_path: Path
) -> None:
    at_step[3] = [number]
    run_dir = tmp_path / "my run"
    with pytest.raises(TrainingStopped, match=r"stopped at 3; go on with --resume '.*/my run'"):
        start(run_dir)
    assert (counts(run_dir), checkpoints(run_dir)) == ([1, 2, 3], [2, 3])
    at_step.clear()
    assert "counting from 3" in resume(run_dir)
    assert counts(run_dir) == [1, 2, 3, 4]
    assert RunDirectory.open(run_dir).attempts == 2


def test_a_second_signal_stops_at_once(at_step: dict[int, Any], tmp_path: Path) -> None:
    at_step[3] = [signal.SIGINT, signal.SIGINT]
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path)
    assert checkpoints(tmp_path) == [2]


@pytest.mark.parametrize(
    ("step", "kept"), [(1, "Nothing was learned"), (3, "checkpoint of step 2")]
)
def test_an_environment_that_fails_names_the_way_on(
    step: int, kept: str, at_step: dict[int, Any], tmp_path: Path
) -> None:
    at_step[step] = EnvironmentFailure("the level is missing")
    with pytest.raises(EnvironmentFailure, match=f"the level is missing. .*{kept}.*--resume"):
        start(tmp_path)
    at_step.clear()
    said = resume(tmp_path)
    assert ("there is no checkpoint yet: beginning again" in said) == (step == 1)
    # Rows beyond the checkpoint are repeated, not doubled.
    assert counts(tmp_path) == [1, 2, 3, 4]


def test_wall_time_adds_up_over_attempts(tmp_path: Path) -> None:
    start(tmp_path)
    seconds = [(RunDirectory.open(tmp_path).summary() or {})["seconds"]]
    for length in (6, 8):
        resume(tmp_path, length=length)
        seconds.append((RunDirectory.open(tmp_path).summary() or {})["seconds"])
    assert seconds == sorted(seconds)


def test_a_finished_run_is_only_extended(tmp_path: Path) -> None:
    start(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(
        UserError, match=r"is done: it took its 4 steps\. Extend it with --length 8"
    ):
        resume(tmp_path)
    with pytest.raises(UserError, match=r"--seed cannot change on a resume: the run has 0, not 1;"):
        resume(tmp_path, seed=1)
    with pytest.raises(UserError, match="--length -1 must be"):
        resume(tmp_path, length=-1)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    resume(tmp_path, length=5)
    assert counts(tmp_path) == [1, 2, 3, 4, 5]
    assert RunDirectory.open(tmp_path).config["counting"] == asdict(replace(Config(), length=5))
