"""A run's directory loses nothing: not to a kill, a full disk, a second writer or a resume."""

from __future__ import annotations

import gc
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest
from rich.console import Console
from support.run_files import CONFIG, save_checkpoint

from envs.errors import UserError
from rlcnn.runs import directory as runs
from rlcnn.runs.directory import RunDirectory, claimed_directory


def test_runs_of_one_name_take_the_next_free_one(tmp_path: Path) -> None:
    (tmp_path / "run-3").touch()
    wanted = tmp_path / "run"

    def claim(run_dir: Path | None) -> Path:
        with claimed_directory(run_dir, wanted, Console(quiet=True)) as path:
            return path

    # The third name is a file's.
    assert [claim(None).name for _ in range(3)] == ["run", "run-2", "run-4"]
    assert claim(wanted) == wanted
    RunDirectory.create(wanted, CONFIG).close()
    with pytest.raises(UserError, match="not empty"):
        claim(wanted)


def killed_while(path: Path, body: str) -> None:
    """Open a run for writing in another process, run ``body`` there, and kill it with -9."""
    code = f"""
import time
from rlcnn.runs.directory import RunDirectory
run = RunDirectory.open({str(path)!r}, write=True)
{body}
print("ready", flush=True)
time.sleep(60)
"""
    root = Path(__file__).parents[3]
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=root, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        with pytest.raises(UserError, match="in use by another process"):
            RunDirectory.open(path, write=True)
        assert RunDirectory.open(path).config == CONFIG
        process.send_signal(signal.SIGKILL)


# -- making and opening ----------------------------------------------------------------------------


def test_a_run_is_found_again_as_it_was_made(tmp_path: Path) -> None:
    with RunDirectory.create(tmp_path / "parent" / "run", CONFIG) as run:
        run.update_config({"device": "cpu", "seed": 8})
    again = RunDirectory.open(tmp_path / "parent" / "run")
    assert again.config == {**CONFIG, "device": "cpu", "seed": 8}
    assert again.summary() is None
    assert again.metrics() == []
    assert again.checkpoints() == []
    assert again.latest_whole() == (None, [])


def test_an_empty_directory_may_become_a_run(tmp_path: Path) -> None:
    RunDirectory.create(tmp_path, CONFIG).close()
    assert RunDirectory.open(tmp_path).config == CONFIG


def test_a_directory_with_anything_in_it_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UserError, match="exists and is not empty"):
        RunDirectory.create(tmp_path, CONFIG)
    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_a_run_is_not_made_over_another(run: RunDirectory) -> None:
    with pytest.raises(UserError, match="exists and is not empty"):
        RunDirectory.create(run.path, CONFIG)


@pytest.mark.parametrize("place", ["file", "file/run", "/proc/run"])
def test_a_place_that_cannot_hold_a_run_is_named(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=f"{place}[^\n]*$"):
        RunDirectory.create(tmp_path / place, CONFIG)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_place_without_permission_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match=r"cannot write .*/run: permission denied"):
        RunDirectory.create(tmp_path / "run", CONFIG)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (None, "does not exist"),
        ({}, "is empty"),
        ({"metrics.jsonl": b""}, "holds no config.json"),
        ({"config.json": b""}, "truncated or corrupted"),
        ({"config.json": b'{"seed": 7, "pp'}, "truncated or corrupted"),
        ({"config.json": b"\x80"}, "truncated or corrupted"),
        ({"config.json": b"7"}, "corrupted"),
    ],
)
@pytest.mark.parametrize("write", [False, True])
def test_what_is_not_a_run_is_refused_in_one_line_and_left_alone(
    tmp_path: Path, files: dict[str, bytes] | None, said: str, write: bool
) -> None:
    path = tmp_path / "run"
    for name, content in (files or {}).items():
        path.mkdir(exist_ok=True)
        (path / name).write_bytes(content)
    if files == {}:
        path.mkdir()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=rf"^[^\n]*{path}[^\n]* {said}[^\n]*$"):
        RunDirectory.open(path, write=write)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_file_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "agent.zip").touch()
    with pytest.raises(UserError, match=r"agent\.zip is not a directory"):
        RunDirectory.open(tmp_path / "agent.zip")


def test_reading_changes_nothing_and_cannot_write(run: RunDirectory) -> None:
    (run.checkpoints_dir / ".being-written.tmp").mkdir()
    run.append_metrics(1, {"loss": 1.0})
    before = sorted(run.path.rglob("*"))
    reader = RunDirectory.open(run.path)
    assert reader.metrics() == [{"step": 1, "loss": 1.0}]
    assert sorted(run.path.rglob("*")) == before
    for write in (
        reader.begin_attempt,
        reader.recover,
        lambda: reader.append_metrics(2, {}),
        lambda: reader.truncate_metrics(0),
        lambda: reader.update_config({}),
        lambda: reader.write_summary({}),
        lambda: reader.prune(1),
        lambda: reader.drop_from_older("replay"),
        lambda: save_checkpoint(reader, 1),
    ):
        with pytest.raises(RuntimeError, match="not open for writing"):
            write()


def test_only_one_may_write_and_closing_hands_over(run: RunDirectory) -> None:
    with pytest.raises(UserError, match=f"{run.path} is in use"):
        RunDirectory.open(run.path, write=True)
    run.close()
    run.close()
    with RunDirectory.open(run.path, write=True):
        pass


def test_a_run_that_is_forgotten_unclosed_is_free_again(tmp_path: Path) -> None:
    RunDirectory.create(tmp_path, CONFIG)
    gc.collect()
    with RunDirectory.open(tmp_path, write=True):
        pass


def test_attempts_are_counted_when_they_begin(run: RunDirectory) -> None:
    assert run.attempts == 0
    run.begin_attempt()
    assert run.attempts == 1
    run.close()
    with RunDirectory.open(run.path, write=True) as again:
        assert again.attempts == 1
        again.begin_attempt({"command": ["train", "--seed", 1]})
    assert RunDirectory.open(run.path).attempts == 2
    first, second = json.loads((run.path / "attempts.json").read_text())["attempts"]
    assert first.keys() == {"started", "host", "pid"}
    assert second == {**second, "pid": os.getpid(), "command": ["train", "--seed", 1]}


@pytest.mark.parametrize("write", [False, True])
def test_opening_touches_nothing(run: RunDirectory, write: bool) -> None:
    run.begin_attempt()
    run.append_metrics(1, {"loss": 1.0})
    save_checkpoint(run, 1)
    (run.checkpoints_dir / ".000000000002.0123abcd.tmp").mkdir()
    run.close()
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}
    RunDirectory.open(run.path, write=write).close()
    assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*")} == before


def test_a_writer_reads_the_configuration_when_nobody_else_may_change_it(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    acquire = runs.acquire

    def late(path: Path) -> IO[bytes]:
        # Just before the lock is had, its last holder writes.
        run.update_config({"seed": 8})
        run.close()
        return acquire(path)

    monkeypatch.setattr(runs, "acquire", late)
    with RunDirectory.open(run.path, write=True) as again:
        assert again.config["seed"] == 8


# -- a killed process ------------------------------------------------------------------------------


def test_kill_9_frees_the_lock_and_leaves_no_half_checkpoint(run: RunDirectory) -> None:
    whole = save_checkpoint(run, 100)
    run.append_metrics(100, {"loss": 1.0})
    run.close()
    killed_while(
        run.path,
        """
half = run.new_checkpoint(200)
(half.__enter__() / "weights").write_bytes(b"x")
open(run.metrics_path, "a").write('{"step": 200, "lo')
(run.path / ".summary.json.0123abcd.tmp").touch()
""",
    )
    reader = RunDirectory.open(run.path)
    assert reader.latest_whole() == (whole, [])
    assert reader.metrics() == [{"step": 100, "loss": 1.0}]
    assert len(list(run.checkpoints_dir.iterdir())) == 2
    with RunDirectory.open(run.path, write=True) as again:
        again.recover()
        assert list(again.checkpoints_dir.iterdir()) == [whole]
        assert not list(again.path.glob("*.tmp"))
        again.append_metrics(101, {"loss": 0.5})
        assert again.metrics() == [{"step": 100, "loss": 1.0}, {"step": 101, "loss": 0.5}]


def test_a_kill_between_setting_aside_and_replacing_brings_the_old_one_back(
    run: RunDirectory,
) -> None:
    checkpoint = save_checkpoint(run, 100)
    checkpoint.rename(run.checkpoints_dir / ".000000000100.old")
    run.close()
    with RunDirectory.open(run.path, write=True) as again:
        again.recover()
        assert again.latest_whole() == (checkpoint, [])


def test_the_summary_is_what_was_written(run: RunDirectory) -> None:
    run.write_summary({"steps": 100, "eval": {"returns": [1.0, 2.0], "std": math.nan}})
    expected = {"steps": 100, "eval": {"returns": [1.0, 2.0], "std": None}}
    assert RunDirectory.open(run.path).summary() == expected
