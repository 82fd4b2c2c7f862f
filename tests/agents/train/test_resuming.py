"""Training runs that are stopped, resumed and extended."""

from __future__ import annotations

import io
import itertools
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from support.agent_runs import (
    BOTH,
    DQN,
    PPO,
    PPO_FIRST,
    assert_logged_once,
    copied,
    press_ctrl_c,
    quiet,
    steps_of,
    stopped_at,
)
from support.run_files import assert_equal, checkpoint_steps, learned, rows_of

from agents.config import read_config
from agents.evaluate.evaluation import EvaluationPolicy
from agents.seeding import derive_seed
from agents.train import builder, training
from agents.train.callbacks import ShowProgress
from agents.train.training import RESUMABLE, Training, resume, train
from envs.errors import UserError
from rlcnn.runs import lifecycle
from rlcnn.runs.directory import RunDirectory
from rlcnn.runs.stopping import TrainingStopped


@PPO_FIRST
def test_a_stopped_run_is_resumed_without_a_gap(
    algo: str, stopped: dict[str, Path], whole: dict[str, Path], tmp_path: Path
) -> None:
    run_dir = copied(stopped[algo], tmp_path / "run")
    before = rows_of(run_dir)
    stop = checkpoint_steps(run_dir)[-1]
    assert stop == {"ppo": 112, "dqn": 100}[algo]
    assert RunDirectory.open(run_dir).summary() is None
    # Rows up to the stop are those of the run that went on.
    uninterrupted = rows_of(whole[algo])
    assert before == [row for row in uninterrupted if row["step"] <= stop]

    out = io.StringIO()
    resume(run_dir, console=Console(file=out, width=200))
    assert f"resuming from step {stop}" in out.getvalue()
    after = rows_of(run_dir)
    assert after[: len(before)] == before
    if algo == "ppo":
        # Environments began anew, so the values differ; the steps of the rows do not.
        assert [row["step"] for row in after] == [row["step"] for row in uninterrupted]
        assert [sorted(row) for row in after] == [sorted(row) for row in uninterrupted]
    assert_logged_once(run_dir)
    for key in ("eval/mean_return", "video/game"):
        assert steps_of(run_dir, key) == steps_of(whole[algo], key)
    assert checkpoint_steps(run_dir) == checkpoint_steps(whole[algo])
    assert RunDirectory.open(run_dir).attempts == 2


@contextmanager
def stopped_while_playing(environments: int, step: int) -> Iterator[None]:
    """Ctrl-C in the midst of games that are played in so many environments at ``step``."""
    act, calls = EvaluationPolicy.__call__, itertools.count()

    def press(self: EvaluationPolicy, observations: np.ndarray) -> np.ndarray:
        here = len(observations) == environments and self._model.num_timesteps == step
        if here and next(calls) == 3:
            press_ctrl_c()
        return act(self, observations)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EvaluationPolicy, "__call__", press)
        with pytest.raises(TrainingStopped, match=f"stopped at step {step}; go on with --resume"):
            yield


def test_a_stop_ends_games_under_way_and_a_resume_makes_up_for_them(
    whole: dict[str, Path], tmp_path: Path
) -> None:
    run_dir, config = tmp_path / "run", replace(PPO, video_every=100)
    with stopped_while_playing(3, 112):
        train(config, run_dir, console=quiet())
    assert checkpoint_steps(run_dir) == [64, 112]
    uncut = [row for row in rows_of(whole["ppo"]) if row["step"] <= 112]
    assert rows_of(run_dir) == uncut[:-1]
    # The games are played; then a film is cut short.
    with stopped_while_playing(1, 112):
        resume(run_dir, console=quiet())
    assert rows_of(run_dir) == uncut
    assert list((run_dir / "videos").iterdir()) == []

    resume(run_dir, console=quiet())
    assert_logged_once(run_dir)
    assert steps_of(run_dir, "eval/mean_return") == [112, 208, 304, 320]
    assert steps_of(run_dir, "video/game") == [112, 208, 304, 320]
    assert len(list((run_dir / "videos").iterdir())) == 4


def test_no_film_of_the_default_schedule_is_lost_or_repeated(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    config = replace(PPO, total_steps=64, eval_every=32, eval_episodes=1, video_every=None)
    with stopped_while_playing(1, 0):
        train(config, run_dir, console=quiet())
    assert rows_of(run_dir) == []
    with stopped_at(32):
        resume(run_dir, console=quiet())
    assert steps_of(run_dir, "video/game") == [0]
    # The film that the stop prevented is made first.
    resume(run_dir, console=quiet())
    assert steps_of(run_dir, "video/game") == [0, 32, 64]
    # Killed before its first checkpoint, it begins again, with its rows dropped.
    shutil.rmtree(run_dir / "checkpoints")
    (run_dir / "summary.json").unlink()
    resume(run_dir, console=quiet())
    assert steps_of(run_dir, "video/game") == [0, 32, 64]


def test_a_stop_cuts_no_checkpoint_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cut: list[int] = []
    save = training.save_checkpoint

    def save_and_note(model: Any, *args: Any, **kwargs: Any) -> None:
        cut.append(model.num_timesteps)
        save(model, *args, **kwargs)

    monkeypatch.setattr(training, "save_checkpoint", save_and_note)
    with stopped_at(32):
        config = replace(PPO, eval_every=32, eval_episodes=1, checkpoint_every=16)
        train(config, tmp_path / "run", console=quiet())
    assert cut == [16, 32]
    # Stopped again before anything was learned: it is as it was.
    begin = ShowProgress._on_training_start
    monkeypatch.setattr(
        ShowProgress, "_on_training_start", lambda display: [begin(display), press_ctrl_c()]
    )
    with pytest.raises(TrainingStopped, match="stopped at step 32"):
        resume(tmp_path / "run", console=quiet())
    assert cut == [16, 32]


def test_a_stop_during_the_last_checkpoint_comes_before_the_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = training.save_checkpoint

    def save_and_press(model: Any, *args: Any, **kwargs: Any) -> None:
        save(model, *args, **kwargs)
        press_ctrl_c()

    monkeypatch.setattr(training, "save_checkpoint", save_and_press)
    with pytest.raises(TrainingStopped, match="stopped at step 32; go on with --resume"):
        train(replace(PPO, total_steps=32), tmp_path / "run", console=quiet())
    assert checkpoint_steps(tmp_path / "run") == [32]
    assert steps_of(tmp_path / "run", "eval/mean_return") == []


@BOTH
def test_two_resumes_of_one_checkpoint_are_alike_to_the_bit(
    algo: str, stopped: dict[str, Path], tmp_path: Path
) -> None:
    runs = []
    for name in ("one", "other"):
        runs.append(copied(stopped[algo], tmp_path / name))
        np.random.seed(len(runs)), torch.manual_seed(len(runs))
        resume(runs[-1], {"total_steps": 176}, console=quiet())
    assert_equal(*map(learned, runs))
    assert_equal(*map(rows_of, runs))


@PPO_FIRST
def test_with_overlap_a_run_is_resumed_to_the_bit_and_without_a_gap(
    algo: str, tmp_path: Path
) -> None:
    config, stop = {"ppo": (PPO, 112), "dqn": (DQN, 100)}[algo]
    config = replace(config, overlap="on", total_steps=208)
    whole = train(config, tmp_path / "whole", console=quiet())
    with stopped_at(stop):
        train(config, tmp_path / "stopped", console=quiet())
    before = rows_of(tmp_path / "stopped")
    assert before == [row for row in rows_of(whole) if row["step"] <= stop]
    runs = [copied(tmp_path / "stopped", tmp_path / name) for name in ("one", "other")]
    for run in runs:
        resume(run, console=quiet())
    assert_equal(*map(learned, runs))
    assert_equal(*map(rows_of, runs))
    assert rows_of(runs[0])[: len(before)] == before
    assert_logged_once(runs[0])
    if algo == "ppo":
        assert steps_of(runs[0], "train/loss") == list(range(16, 209, 16))


def tensorboard_restarts(run_dir: Path) -> list[int]:
    """The steps from which TensorBoard hides rows, since they were repeated."""
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_file_loader")
    start = pytest.importorskip("tensorboard.compat.proto.event_pb2").SessionLog.START
    return [
        event.step
        for path in sorted((run_dir / "tb").iterdir())
        for event in loader.EventFileLoader(str(path)).Load()
        if event.session_log.status == start
    ]


def test_tensorboard_shows_nothing_twice(stopped: dict[str, Path], tmp_path: Path) -> None:
    run_dir = copied(stopped["ppo"], tmp_path / "run")
    assert tensorboard_restarts(run_dir) == []
    resume(run_dir, {"total_steps": 128}, console=quiet())
    assert tensorboard_restarts(run_dir) == [113]
    again = copied(stopped["ppo"], tmp_path / "again")
    shutil.rmtree(again / "checkpoints")
    resume(again, {"total_steps": 16}, console=quiet())
    assert tensorboard_restarts(again) == [0]


@BOTH
def test_a_resumed_run_plays_new_games(algo: str) -> None:
    config = {"ppo": PPO, "dqn": DQN}[algo]
    seen = []
    for step in (0, 112):
        with (
            closing(builder.make_train_env(config)) as venv,
            closing(builder.make_train_env(config)) as expected,
        ):
            builder.build_agent(config, venv, step)
            expected.seed(derive_seed(config.seed, "train", step))
            expected.reset(), venv.reset()
            actions = np.zeros(2, dtype=int)
            games = [[env.step(actions)[0] for _ in range(20)] for env in (venv, expected)]
        np.testing.assert_array_equal(*games)
        seen.append(np.array(games[0]))
    assert (seen[0] != seen[1]).any()


def test_rows_after_the_checkpoint_are_done_again_not_doubled(
    stopped: dict[str, Path], tmp_path: Path
) -> None:
    run_dir = copied(stopped["ppo"], tmp_path / "run")
    with open(run_dir / "metrics.jsonl", "a") as file:
        file.write('{"step": 128, "rollout/ep_rew_mean": 1e9}\n{"step": 144, "rol')
    shutil.rmtree(run_dir / "checkpoints" / "000000000112")
    resume(run_dir, {"total_steps": 160}, console=quiet())
    assert steps_of(run_dir, "rollout/ep_rew_mean") == list(range(16, 161, 16))
    assert max(row.get("rollout/ep_rew_mean", 0) for row in rows_of(run_dir)) < 100


def test_a_broken_checkpoint_is_passed_over(stopped: dict[str, Path], tmp_path: Path) -> None:
    run_dir = copied(stopped["ppo"], tmp_path / "run")
    harmed = run_dir / "checkpoints" / "000000000112" / "policy.safetensors"
    harmed.write_bytes(harmed.read_bytes()[:-1] + b"?")
    out = io.StringIO()
    resume(run_dir, {"total_steps": 128}, console=Console(file=out, width=300))
    assert "is skipped" in out.getvalue()
    assert "resuming from step 64" in out.getvalue()
    assert steps_of(run_dir, "rollout/ep_rew_mean") == list(range(16, 129, 16))


def test_without_a_whole_checkpoint_it_is_refused(stopped: dict[str, Path], tmp_path: Path) -> None:
    run_dir = copied(stopped["ppo"], tmp_path / "run")
    for path in (run_dir / "checkpoints").iterdir():
        (path / "optimizer.pt").write_bytes(b"")
    before = (run_dir / "metrics.jsonl").read_bytes()
    with pytest.raises(UserError, match=r"no checkpoint of run .* is whole; begin a new run with"):
        resume(run_dir, console=quiet())
    assert (run_dir / "metrics.jsonl").read_bytes() == before


def test_a_run_killed_before_its_first_checkpoint_begins_again(
    stopped: dict[str, Path], whole: dict[str, Path], tmp_path: Path
) -> None:
    run_dir = copied(stopped["ppo"], tmp_path / "run")
    shutil.rmtree(run_dir / "checkpoints")
    resume(run_dir, console=quiet())
    assert rows_of(run_dir) == rows_of(whole["ppo"])
    assert_equal(learned(run_dir), learned(whole["ppo"]))


@PPO_FIRST
def test_a_finished_run_is_done_unless_it_is_extended(
    algo: str, whole: dict[str, Path], tmp_path: Path
) -> None:
    run_dir = copied(whole[algo], tmp_path / "run")
    for changes in ({}, {"total_steps": 320}, {"total_steps": 100}, {"eval_episodes": 5}):
        with pytest.raises(UserError, match="is done: it took its 320 steps") as error:
            resume(run_dir, changes, console=quiet())
        assert "--total-steps 640" in str(error.value)
    assert rows_of(run_dir) == rows_of(whole[algo])
    assert RunDirectory.open(run_dir).attempts == 1

    resume(run_dir, {"total_steps": 400}, console=quiet())
    summary = RunDirectory.open(run_dir).summary()
    assert summary is not None
    assert summary["steps"] == 400
    rows = rows_of(run_dir)
    assert rows[: len(rows_of(whole[algo]))] == rows_of(whole[algo])
    assert steps_of(run_dir, "eval/mean_return")[-1] == 400
    assert read_config(RunDirectory.open(run_dir)).total_steps == 400
    if algo == "ppo":
        # The rate goes on from where the longer run's schedule has it.
        key = "train/learning_rate"
        rates = {row["step"]: row[key] for row in rows if key in row}
        assert rates[352] == pytest.approx(PPO.ppo.learning_rate * (1 - 352 / 400))
    with pytest.raises(UserError, match="is done: it took its 400 steps"):
        resume(run_dir, console=quiet())


def test_an_extension_that_was_stopped_can_be_resumed(
    whole: dict[str, Path], tmp_path: Path
) -> None:
    run_dir = copied(whole["ppo"], tmp_path / "run")
    with stopped_at(400):
        resume(run_dir, {"total_steps": 480}, console=quiet())
    resume(run_dir, console=quiet())
    summary = RunDirectory.open(run_dir).summary()
    assert summary is not None
    assert summary["steps"] == 480
    assert steps_of(run_dir, "rollout/ep_rew_mean") == list(range(16, 481, 16))


def test_an_interrupted_ending_is_made_up_for(
    stopped: dict[str, Path], whole: dict[str, Path], tmp_path: Path
) -> None:
    run_dir = copied(stopped["ppo"], tmp_path / "run")

    def interrupt(self: Training, log: bool = True) -> Path:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "film", interrupt)
        with pytest.raises(KeyboardInterrupt):
            resume(run_dir, console=quiet())
    assert RunDirectory.open(run_dir).summary() is None
    resume(run_dir, console=quiet())
    assert RunDirectory.open(run_dir).summary() is not None
    for key in ("eval/mean_return", "video/game"):
        assert steps_of(run_dir, key) == steps_of(whole["ppo"], key)


@pytest.mark.parametrize(
    ("name", "value", "option"),
    [
        ("seed", 4, "seed"),
        ("env", "ALE/Pong-v5", "env"),
        ("ppo", replace(PPO.ppo, gamma=0.5), "ppo.gamma"),
        ("num_envs", 3, "num-envs"),
        ("algo", "dqn", "algo"),
    ],
)
def test_what_would_make_it_another_run_cannot_change(name: str, value: Any, option: str) -> None:
    with pytest.raises(UserError, match=f"--{option} cannot change on a resume"):
        lifecycle.apply_resume_changes(PPO, {name: value}, RESUMABLE)


def test_what_is_no_run_cannot_be_resumed(tmp_path: Path, whole: dict[str, Path]) -> None:
    with pytest.raises(UserError, match="does not exist"):
        resume(tmp_path / "nowhere", console=quiet())
    with pytest.raises(UserError, match="is empty"):
        resume(tmp_path, console=quiet())
    with (
        RunDirectory.open(copied(whole["ppo"], tmp_path / "run"), write=True),
        pytest.raises(UserError, match="is in use by another process"),
    ):
        resume(tmp_path / "run", {"total_steps": 400}, console=quiet())
