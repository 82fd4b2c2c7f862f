"""trackio in place of Weights & Biases: the same run in its database, and what it refuses."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from envs.errors import UserError
from rlcnn.runs import tracker, tracking
from rlcnn.runs.directory import RunDirectory
from rlcnn.runs.tracker import check_tracking
from rlcnn.runs.tracking import make_tracker

# A process of its own: trackio looks up its directory when it is imported.
RECORD = """
import sys
from pathlib import Path
from rlcnn.runs.directory import RunDirectory
from rlcnn.runs.tracker import RunCard
from rlcnn.runs.tracking import make_tracker

card = RunCard({"seed": 7, "ppo": {"gamma": 0.5}}, "train", group="Pong-ppo", tags=["ppo"])


def record(path, step, **options):
    with RunDirectory.open(path, write=True) as run:
        run.begin_attempt()
        tracker = make_tracker(run, "offline", "trackio", card=card, project="pixels", **options)
        tracker.log(step, {"eval/mean_return": step / 10})
        film = run.videos_dir / "film.mp4"
        film.write_bytes(b"not really H.264")
        tracker.video(step, "video/game", film, "return 21")
        tracker.video(step, "video/game", Path("gone.mp4"), "")
        tracker.model([path / "config.json"], {"steps": step})
        tracker.close()


for path in (Path("a/run"), Path("b/run")):
    RunDirectory.create(path, {}).close()
    record(path, 10)
record(Path("a/run"), 20, purge_step=11)
"""
READ = """
import json
from trackio import Api
from trackio.sqlite_storage import SQLiteStorage


def rows(run):
    return SQLiteStorage.get_logs("pixels", run.name, run_id=run.id)


found = {run.name: {"config": run.config, "rows": rows(run)} for run in Api().runs("pixels")}
print(json.dumps(found))
"""


@pytest.mark.skipif(find_spec("trackio") is None, reason="trackio is not installed")
def test_a_run_and_its_resume_are_one_run_of_trackio(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "TRACKIO_DIR": str(tmp_path / "trackio"),
        "PYTHONPATH": os.pathsep.join(sys.path),
        # Offline, nothing is sent there.
        "TRACKIO_SERVER_URL": "http://127.0.0.1:9",
    }

    def run(code: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True
        )

    recorded = run(RECORD)
    assert recorded.returncode == 0, recorded.stderr
    assert recorded.stdout == ""
    warnings = recorded.stderr.splitlines()
    assert warnings == ["trackio misses something: File not found: gone.mp4"] * 3

    environment.pop("TRACKIO_SERVER_URL")
    runs: dict[str, Any] = json.loads(run(READ).stdout)
    (other,) = set(runs) - {"run"}
    assert other.startswith("run-"), "two directories of one name are two runs"
    config, rows = runs["run"]["config"], runs["run"]["rows"]
    assert (config["seed"], config["ppo"], config["tags"]) == (7, {"gamma": 0.5}, ["ppo"])
    assert (config["_Group"], config["job_type"]) == ("Pong-ppo", "train")
    # That of the last attempt.
    assert config["provenance"]["attempt"] == 2
    returns = [(row["step"], row["eval/mean_return"]) for row in rows if "eval/mean_return" in row]
    assert returns == [(10, 1.0), (20, 2.0)]
    assert [row["summary/best/eval/mean_return"] for row in rows if "summary/steps" in row] == [
        1,
        2,
    ]
    films = [row["video/game"] for row in rows if "video/game" in row]
    assert [film["caption"] for film in films] == ["return 21"] * 2
    kept = [tmp_path / "trackio" / "media" / film["file_path"] for film in films]
    assert all(path.read_bytes() == b"not really H.264" for path in kept)
    assert list((tmp_path / "trackio" / "artifacts").rglob("sha256/*/*"))


def test_a_service_that_cannot_start_costs_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # As in an environment where the package is damaged.
    monkeypatch.setitem(sys.modules, "trackio", None)
    monkeypatch.setattr(tracking, "check_tracking", lambda *options: None)
    with RunDirectory.create(tmp_path / "run", {}) as run:
        recording = make_tracker(run, "offline", "trackio")
        recording.log(1, {"loss": 0.5})
        recording.close()
        assert run.metrics() == [{"step": 1, "loss": 0.5}]
    (warning,) = [entry for entry in caplog.records if entry.levelno == logging.WARNING]
    assert warning.getMessage().startswith("trackio cannot start offline: ")


@pytest.mark.parametrize(
    "options, message",
    [
        (("offline", "trackio"), r'needs trackio.*: pip install "rlcnn\[trackio\]"$'),
        (("offline", "trakio"), r'^--tracker "trakio" is unknown: .* Did you mean "trackio"'),
        (("onlin", "wandb"), r'^--track "onlin" is unknown: .* Did you mean "online"'),
        (("disabled", "wandb", True), r"^--log-model needs a tracker: give --track offline"),
    ],
)
def test_options_that_cannot_work_are_one_line(
    options: tuple[Any, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracker, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=message):
        check_tracking(*options)
    check_tracking("disabled", "trackio")
