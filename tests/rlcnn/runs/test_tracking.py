"""Figures and films reach the run's files, TensorBoard and W&B, and none of these stops a run."""

from __future__ import annotations

import json
import logging
import math
import os
import pty
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stable_baselines3.common.logger import Image, Logger
from support.tracked_runs import history, wandb_directories, wandb_records

from envs.errors import UserError
from rlcnn.runs.directory import RunDirectory
from rlcnn.runs.tracker import RunCard, Tracker
from rlcnn.runs.tracking import (
    MetricsTracker,
    TensorBoardTracker,
    TrackerWriter,
    make_tracker,
)

ROOT = Path(__file__).parents[3]
LABELS = {"group": "a study", "tags": ["scratch", "Pong"]}
CONFIG = {"labels": LABELS}
CARD = RunCard({"seed": 7, "ppo": {"gamma": 0.99}}, group="its own", tags=["ppo"])


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunDirectory]:
    with RunDirectory.create(tmp_path / "run", CONFIG) as run:
        yield run


@pytest.fixture
def film(run: RunDirectory) -> Path:
    path = run.videos_dir / "000000000005.mp4"
    path.write_bytes(b"not really H.264")
    return path


def scalars(run: RunDirectory) -> dict[str, list[tuple[int, float]]]:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    board = events.EventAccumulator(str(run.tb_dir)).Reload()
    return {
        tag: [(event.step, event.value) for event in board.Scalars(tag)]
        for tag in board.Tags()["scalars"]
    }


def warnings(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """The project's own warnings, without W&B's."""
    return [entry for entry in caplog.records if entry.name.startswith("rlcnn.")]


# -- the run's own file and TensorBoard ------------------------------------------------------------


def test_figures_reach_metrics_and_tensorboard_under_the_same_names(run: RunDirectory) -> None:
    tracker = make_tracker(run, "disabled")
    tracker.log(10, {"train/loss": 0.5, "train/return": -21})
    tracker.log(20, {"train/loss": 0.25})
    expected = [
        {"step": 10, "train/loss": 0.5, "train/return": -21},
        {"step": 20, "train/loss": 0.25},
    ]
    # Before anything is closed: a killed run has lost none of it.
    assert run.metrics() == expected
    assert scalars(run) == {"train/loss": [(10, 0.5), (20, 0.25)], "train/return": [(10, -21.0)]}
    tracker.close()
    tracker.close()
    assert run.metrics() == expected
    assert not (run.path / "wandb").exists()


def test_a_film_is_a_row_with_its_path_within_the_run(run: RunDirectory, film: Path) -> None:
    tracker = make_tracker(run, "disabled")
    tracker.video(5, "video/eval", film, "return 21")
    tracker.close()
    assert run.metrics() == [{"step": 5, "video/eval": "videos/000000000005.mp4"}]
    assert scalars(run) == {}


def test_nan_is_null_in_metrics_and_nan_in_tensorboard(run: RunDirectory) -> None:
    tracker = make_tracker(run, "disabled")
    tracker.log(1, {"loss": math.nan})
    tracker.close()
    assert run.metrics() == [{"step": 1, "loss": None}]
    assert math.isnan(scalars(run)["loss"][0][1])


def test_a_resume_hides_what_tensorboard_holds_beyond_its_step(run: RunDirectory) -> None:
    first = make_tracker(run, "disabled")
    for step in (10, 20, 30):
        first.log(step, {"loss": step})
    first.close()
    second = make_tracker(run, "disabled", purge_step=11)
    second.log(20, {"loss": 0.5})
    second.close()
    assert scalars(run) == {"loss": [(10, 10.0), (20, 0.5)]}


def test_a_full_disk_under_tensorboard_is_one_line(tmp_path: Path, largest_file: Any) -> None:
    tracker = TensorBoardTracker(tmp_path)
    with largest_file(200), pytest.raises(UserError, match=r"^cannot write [^\n]+$"):
        tracker.log(1, {"k" * 1000: 1.0})


def test_an_unknown_mode_is_refused_with_the_nearest(run: RunDirectory) -> None:
    with pytest.raises(UserError, match=r'"ofline" is unknown: .* Did you mean "offline"'):
        make_tracker(run, "ofline")  # type: ignore[arg-type]


# -- W&B -------------------------------------------------------------------------------------------


def test_every_attempt_is_one_offline_directory_of_the_same_wandb_run(
    run: RunDirectory, film: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run.begin_attempt()
    first = make_tracker(run, "offline", card=CARD, project="pixels")
    first.log(10, {"train/loss": 0.5})
    first.log(10, {"train/entropy": 1.5})
    first.log(30, {"train/loss": 0.3})
    first.video(30, "video/eval", film, "return 21")
    first.close()
    run.close()
    with RunDirectory.open(run.path, write=True) as again:
        again.begin_attempt()
        second = make_tracker(again, "offline", card=CARD, project="pixels", purge_step=11)
        second.log(20, {"train/loss": 0.4})
        second.close()

    directories = wandb_directories(run.path)
    assert all(path.name.startswith("offline-run-") for path in directories)
    found = [wandb_records(path) for path in directories]
    attempts = [next(r["run"] for r in part if r["type"] == "run") for part in found]
    configs = [attempt["config"]["update"] for attempt in attempts]
    assert [config["provenance"]["attempt"] for config in configs] == [1, 2]
    for attempt, config in zip(attempts, configs, strict=True):
        assert attempt["run_id"] == json.loads((run.path / "wandb.json").read_text())["id"]
        assert attempt["project"] == "pixels"
        assert attempt["display_name"] == run.path.name
        assert attempt["run_group"] == "a study"
        assert attempt["tags"] == ["scratch", "Pong", "ppo"]
        assert attempt["resume"] is True
        assert (config["seed"], config["ppo"]) == (7, {"gamma": 0.99})

    rows = [history(part) for part in found]
    assert [[row["step"] for row in part] for part in rows] == [[10, 10, 30, 30], [20]]
    assert [row.get("train/loss") for row in rows[0] + rows[1]] == [0.5, None, 0.3, None, 0.4]
    numbers = [row["_step"] for part in rows for row in part]
    assert numbers == sorted(set(numbers))

    logged = rows[0][3]
    assert logged["video/eval._type"] == "video-file"
    assert logged["video/eval.caption"] == "return 21"
    kept = directories[0] / "files" / logged["video/eval.path"]
    assert kept.suffix == ".mp4"
    assert kept.read_bytes() == film.read_bytes()

    axes = [r["metric"] for r in found[0] if r["type"] == "metric"]
    assert {axis.get("glob_name"): axis.get("step_metric") for axis in axes}["*"] == "step"
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_online_without_an_account_warns_once_and_records_offline(
    run: RunDirectory, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(run.path))
    monkeypatch.setenv("NETRC", str(run.path / "none"))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    tracker = make_tracker(run, "online")
    tracker.log(1, {"loss": 0.5})
    tracker.close()
    (warning,) = warnings(caplog)
    assert "cannot start online: " in warning.getMessage()
    assert run.metrics() == [{"step": 1, "loss": 0.5}]
    (directory,) = wandb_directories(run.path)
    assert directory.name.startswith("offline-run-")
    assert [row["loss"] for row in history(wandb_records(directory))] == [0.5]


@pytest.mark.slow
def test_online_that_cannot_be_warns_once_and_records_offline(tmp_path: Path) -> None:
    code = """
import os, sys
from rlcnn.runs import tracking, weights_and_biases
from rlcnn.runs.directory import RunDirectory

assert "wandb" not in sys.modules, "imported before it is wanted"
assert sys.stdin.isatty()
weights_and_biases._INIT_TIMEOUT_S = 1.0


def start_online(name):
    with RunDirectory.create(name, {}) as run:
        tracker = tracking.make_tracker(run, "online")
        tracker.log(1, {"loss": 0.5})
        tracker.close()


start_online("no-account")
os.environ["WANDB_API_KEY"] = "0" * 40
start_online("no-network")
"""
    environment = {key: value for key, value in os.environ.items() if key[:6] != "WANDB_"}
    environment |= {
        "HOME": str(tmp_path),
        "NETRC": str(tmp_path / "none"),
        "PYTHONPATH": str(ROOT),
        "WANDB_BASE_URL": "http://127.0.0.1:9",
    }
    # On a terminal W&B would ask for a key, and wait.
    terminal, theirs = pty.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env=environment,
            stdin=theirs,
            capture_output=True,
            text=True,
        )
    finally:
        os.close(terminal)
        os.close(theirs)
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("Weights & Biases")]
    assert len(said) == 2, done.stderr
    assert said[0] == (
        "Weights & Biases cannot start online: it has no login on this machine; recording offline:"
        " `wandb login` logs in, `wandb sync` uploads"
    )
    assert "cannot start online: " in said[1]
    for name in ("no-account", "no-network"):
        run = RunDirectory.open(tmp_path / name)
        assert run.metrics() == [{"step": 1, "loss": 0.5}]
        (offline,) = run.path.glob("wandb/offline-run-*")
        assert [row["loss"] for row in history(wandb_records(offline))] == [0.5]


def test_a_mode_in_the_environment_that_wandb_does_not_know_stops_nothing(
    run: RunDirectory, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "nonsense")
    tracker = make_tracker(run, "offline")
    tracker.log(1, {"loss": 0.5})
    tracker.close()
    assert not warnings(caplog)
    assert len(wandb_directories(run.path)) == 1


def test_what_wandb_refuses_in_mid_run_is_one_warning_and_stops_nothing(
    run: RunDirectory, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = make_tracker(run, "offline")
    tracker.log(1, {"loss": 0.5})
    tracker.video(2, "video/eval", run.videos_dir / "gone.mp4", "")
    tracker.video(3, "video/eval", run.videos_dir / "gone.mp4", "")
    tracker.log(4, {"loss": 0.4})
    tracker.close()
    (warning,) = warnings(caplog)
    assert "gone.mp4" in warning.getMessage()
    assert "\n" not in warning.getMessage()
    assert [row["step"] for row in run.metrics()] == [1, 2, 3, 4]
    assert [row["step"] for row in history(wandb_records(wandb_directories(run.path)[0]))] == [1, 4]


# -- groups and stable-baselines3 ------------------------------------------------------------------


class Recorder(Tracker):
    """Remembers its rows."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.closed = False

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.rows.append((step, dict(values)))

    def video(self, step: int, key: str, path: object, caption: str) -> None:
        raise NotImplementedError

    def close(self) -> None:
        self.closed = True


def test_one_tracker_that_cannot_close_does_not_keep_another_open(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = []
    monkeypatch.setattr(TensorBoardTracker, "close", lambda self: 1 / 0)
    monkeypatch.setattr(MetricsTracker, "close", lambda self: closed.append(self))
    with pytest.raises(ZeroDivisionError):
        make_tracker(run, "disabled").close()
    assert len(closed) == 1


def test_the_logger_of_stable_baselines3_feeds_a_tracker() -> None:
    recorder = Recorder()
    logger = Logger(folder=None, output_formats=[TrackerWriter(recorder)])
    logger.record("train/loss", np.float32(0.5))
    logger.record("time/iterations", 3)
    logger.record_mean("rollout/return", 1.0)
    logger.record_mean("rollout/return", 2.0)
    logger.record("rollout/note", "words")
    logger.record("rollout/frame", Image(np.zeros((1, 2, 2)), "CHW"))
    logger.record("time/total_timesteps", 640, exclude="tensorboard")
    logger.dump(step=640)
    logger.dump(step=641)
    logger.close()
    assert recorder.rows == [
        (640, {"train/loss": 0.5, "time/iterations": 3.0, "rollout/return": 1.5})
    ]
    assert not recorder.closed
