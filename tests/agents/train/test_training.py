"""Whole training runs: repeated, stopped, resumed, extended, and what they leave behind."""

from __future__ import annotations

import io
import itertools
import json
import random
import resource
import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from support.run_files import assert_equal, learned, rows_of
from support.tiny_agents import TINY

from agents import config as configuration
from agents import load_agent
from agents.config import DQNConfig, PPOConfig, read_config
from agents.evaluate.assessment import assess_run
from agents.evaluate.evaluation import EvaluationPolicy, evaluate_agent
from agents.seeding import derive_seed
from agents.train import builder, training
from agents.train.callbacks import ShowProgress
from agents.train.training import RESUMABLE, Training, default_run_dir, resume, train
from envs.errors import UserError
from envs.protocol import PROTOCOLS
from rlcnn.runs import lifecycle
from rlcnn.runs.directory import RunDirectory
from rlcnn.runs.stopping import TrainingStopped

PPO = replace(
    TINY,
    env="support.games:Signals-v0",
    overlap="off",
    total_steps=320,
    eval_every=100,
    eval_episodes=3,
    checkpoint_every=64,
    keep_checkpoints=2,
    seed=3,
    ppo=PPOConfig(n_steps=8, batch_size=8, n_epochs=2),
)
"""20 rollouts of 16 steps; 80 gradient updates."""

DQN = replace(
    PPO,
    algo="dqn",
    dqn=DQNConfig(buffer_size=200, learning_starts=32, batch_size=8, target_update_interval=50),
)
"""72 gradient updates."""


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


def steps_of(run_dir: Path, key: str) -> list[int]:
    return [row["step"] for row in rows_of(run_dir) if key in row]


def checkpoint_steps(run_dir: Path) -> list[int]:
    return [int(path.name) for path in RunDirectory.open(run_dir).checkpoints()]


def press_ctrl_c() -> None:
    signal.raise_signal(signal.SIGINT)


@contextmanager
def stopped_at(step: int) -> Iterator[None]:
    """Ctrl-C at an evaluation of the agent as it stands, at ``step``."""
    evaluate = Training.evaluate_so_far

    def press(self: Training) -> None:
        evaluate(self)
        if self.model.num_timesteps == step:
            press_ctrl_c()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "evaluate_so_far", press)
        with pytest.raises(TrainingStopped, match=f"stopped at step {step}; go on with --resume"):
            yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A finished run of each algorithm."""
    root = tmp_path_factory.mktemp("whole")
    return {
        config.algo: train(config, root / config.algo, console=quiet()) for config in (PPO, DQN)
    }


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs stopped at 112 steps (PPO) and 100 (DQN)."""
    root = tmp_path_factory.mktemp("stopped")
    runs = {}
    for config, step in ((PPO, 112), (DQN, 100)):
        runs[config.algo] = root / config.algo
        with stopped_at(step):
            train(config, runs[config.algo], console=quiet())
    return runs


def copied(run_dir: Path, to: Path) -> Path:
    shutil.copytree(run_dir, to)
    return to


MADE_BY = ("command", "provenance")

BOTH = pytest.mark.parametrize("algo", ["ppo", "dqn"])
PPO_FIRST = pytest.mark.parametrize("algo", ["ppo", pytest.param("dqn", marks=pytest.mark.slow)])
DQN_FIRST = pytest.mark.parametrize("algo", ["dqn", pytest.param("ppo", marks=pytest.mark.slow)])

# -- repeating -------------------------------------------------------------------------------------


@pytest.fixture
def short_games() -> Iterator[None]:
    """Games of the emulator that a test has time for."""
    with pytest.MonkeyPatch.context() as patch:
        short = replace(PROTOCOLS["classic"], name="short", max_episode_steps=30)
        patch.setitem(PROTOCOLS, "short", short)
        yield


@PPO_FIRST
@pytest.mark.usefixtures("short_games")
def test_the_same_seed_gives_the_same_run_to_the_bit(
    algo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Films of the emulator take half of the time.
    monkeypatch.setattr(Training, "film", lambda *_, **__: None)
    config = {
        "ppo": replace(PPO, total_steps=160, ppo=replace(PPO.ppo, learning_rate=1e-3)),
        "dqn": replace(DQN, total_steps=200, num_envs=4, dqn=replace(DQN.dqn, learning_rate=1e-3)),
    }[algo]
    game = {"env": "ALE/Breakout-v5", "protocol": "short", "eval_every": 100, "eval_episodes": 1}
    config = replace(config, **game)
    runs = []
    for name in ("one", "other"):
        runs.append(train(config, tmp_path / name, console=quiet()))
        # What happened before must not matter.
        np.random.seed(99), torch.manual_seed(99), random.seed(99)
    one, other = map(learned, runs)
    assert_equal(one, other)
    rows = [rows_of(run) for run in runs]
    assert_equal(*rows)
    summaries = [RunDirectory.open(run).summary() for run in runs]
    assert summaries[0]["eval"] == summaries[1]["eval"]  # type: ignore[index]
    minibatches = 2 if algo == "ppo" else 1
    assert one["state"]["n_updates"] * minibatches >= 40
    assert any("train/loss" in row for row in rows[0])


def test_another_seed_gives_another_run(whole: dict[str, Path], tmp_path: Path) -> None:
    config = replace(PPO, seed=4, total_steps=32, eval_episodes=0)
    another = train(config, tmp_path / "run", console=quiet())
    assert not torch.equal(*(first_filters(learned(run)) for run in (another, whole["ppo"])))


def first_filters(held: dict[str, Any]) -> torch.Tensor:
    """The weights of the encoder's first layer in what :func:`learned` returns."""
    return next(value for key, value in held["policy"].items() if key.endswith("trunk.c1.weight"))


# -- what happens when, and what is left -----------------------------------------------------------


def test_periodic_things_happen_when_they_are_due(whole: dict[str, Path]) -> None:
    # The first step between two updates at or after each multiple; the last is the final one.
    assert steps_of(whole["ppo"], "eval/mean_return") == [112, 208, 304, 320]
    assert steps_of(whole["dqn"], "eval/mean_return") == [100, 200, 300, 320]
    for run_dir in whole.values():
        assert checkpoint_steps(run_dir) == [256, 320]
        assert steps_of(run_dir, "video/game") == [320]
    assert steps_of(whole["ppo"], "rollout/ep_rew_mean") == list(range(16, 321, 16))


def test_every_update_is_told_of_under_its_own_step(whole: dict[str, Path], tmp_path: Path) -> None:
    assert steps_of(whole["ppo"], "train/loss") == list(range(16, 321, 16))
    rates = [row["train/learning_rate"] for row in rows_of(whole["ppo"]) if "train/loss" in row]
    assert rates == pytest.approx([PPO.ppo.learning_rate * (1 - n / 20) for n in range(1, 21)])
    assert learned(whole["ppo"])["state"]["pending"] == {}

    # Games end every 16 steps, and every fourth is logged; no game ends with the run.
    config = replace(DQN, total_steps=120, eval_episodes=0)
    run_dir = train(config, tmp_path / "run", console=quiet())
    assert steps_of(run_dir, "train/loss") == [64, 96, 120]
    assert learned(run_dir)["state"]["losses"] == [0, 0]
    resume(run_dir, {"total_steps": 136}, console=quiet())
    assert steps_of(run_dir, "train/loss") == [64, 96, 120, 136]
    assert_told_once(run_dir)


def assert_told_once(run_dir: Path) -> None:
    """No step has two values of one figure."""
    told = Counter((row["step"], key) for row in rows_of(run_dir) for key in row if key != "step")
    assert set(told.values()) == {1}


def test_films_are_made_when_they_are_due(tmp_path: Path) -> None:
    config = replace(PPO, total_steps=64, eval_episodes=0, video_every=30, checkpoint_every=0)
    run_dir = train(config, tmp_path / "run", console=quiet())
    assert steps_of(run_dir, "video/game") == [32, 64]
    for step in (32, 64):
        assert (run_dir / "videos" / f"{step:012d}.mp4").stat().st_size > 0
    # Without evaluations, and with nothing but the last state.
    assert steps_of(run_dir, "eval/mean_return") == []
    assert checkpoint_steps(run_dir) == [64]
    summary = RunDirectory.open(run_dir).summary()
    assert summary is not None
    assert summary["eval"] is None
    assert summary["video"] == "videos/000000000064.mp4"


@BOTH
def test_the_summary_says_what_came_of_it(algo: str, whole: dict[str, Path]) -> None:
    run_dir = whole[algo]
    summary = RunDirectory.open(run_dir).summary()
    assert summary is not None
    assert summary["steps"] == 320
    assert summary["steps_per_second"] > 0
    assert summary["wall_seconds"] > 320 / summary["steps_per_second"] * 0.99
    judged = summary["eval"]
    assert judged["episodes"] == len(judged["returns"]) == len(judged["lengths"]) == 3
    assert judged["mean_return"] == np.mean(judged["returns"])
    assert judged["std"] == pytest.approx(np.std(judged["returns"], ddof=1))
    assert judged["protocol"]["name"] == "classic"
    (row,) = (row for row in rows_of(run_dir) if row["step"] == 320 and "eval/std" in row)
    assert row["eval/mean_return"] == judged["mean_return"]
    assert (run_dir / summary["video"]).exists()


@BOTH
def test_the_agent_of_a_run_plays_as_the_run_judged_it(algo: str, whole: dict[str, Path]) -> None:
    config = read_config(RunDirectory.open(whole[algo]))
    model = load_agent(whole[algo], device="cpu")
    summary = RunDirectory.open(whole[algo]).summary()
    assert summary is not None
    assert evaluate_agent(model, config).to_json() == summary["eval"]


@BOTH
def test_a_stopped_agent_plays_as_the_run_judged_it_at_its_step(
    algo: str, stopped: dict[str, Path]
) -> None:
    assessment = assess_run(stopped[algo], console=quiet())
    (row,) = (row for row in rows_of(stopped[algo]) if "eval/std" in row)
    result = assessment.evaluation
    assert result is not None
    assert row == {
        "step": assessment.step,
        "eval/mean_return": result.mean_return,
        "eval/std": result.std,
        "eval/mean_length": np.mean(result.lengths),
        "eval/episodes": 3,
    }


def test_only_the_newest_replay_is_kept(whole: dict[str, Path]) -> None:
    older, newest = RunDirectory.open(whole["dqn"]).checkpoints()
    assert not (older / "replay.safetensors").exists()
    assert (newest / "replay.safetensors").exists()
    run = RunDirectory.open(whole["dqn"])
    assert [run.verify(path) for path in (older, newest)] == [None, None]


def test_a_replay_need_not_be_kept(tmp_path: Path) -> None:
    config = replace(DQN, total_steps=100, save_replay=False, eval_episodes=0)
    train(config, tmp_path / "run", console=quiet())
    (newest,) = RunDirectory.open(tmp_path / "run").checkpoints()[-1:]
    assert not (newest / "replay.safetensors").exists()


def test_what_auto_stood_for_is_written_down_and_used_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(configuration, "resolve_precision", lambda device: "bf16")
    monkeypatch.setattr(configuration, "usable_cores", lambda: 1)
    auto = {"device": "auto", "precision": "auto", "compile": "auto", "num_threads": 0}
    config = replace(PPO, total_steps=32, eval_episodes=0, **auto)
    run_dir = train(config, tmp_path / "run", console=quiet())
    told = {"precision": "bf16", "compile": "off", "num_threads": 1}
    written = json.loads((run_dir / "config.json").read_text())["config"]
    assert written["device"] == ("cuda" if torch.cuda.is_available() else "cpu")
    assert {key: written[key] for key in told} == told

    monkeypatch.setattr(configuration, "resolve_precision", lambda device: "fp32")
    monkeypatch.setattr(configuration, "usable_cores", lambda: 2)
    resume(run_dir, {"total_steps": 64}, console=quiet())
    written = json.loads((run_dir / "config.json").read_text())["config"]
    assert {key: written[key] for key in told} == told
    assert load_agent(run_dir).policy.precision == "bf16"


def test_the_document_repeats_the_run(whole: dict[str, Path], tmp_path: Path) -> None:
    document = json.loads((whole["ppo"] / "config.json").read_text())
    assert {"torch", "python", "rlcnn"} <= document["provenance"]["versions"].keys()
    assert document["command"]
    assert read_config(whole["ppo"] / "config.json") == PPO


def test_every_attempt_tells_what_it_was_made_by(
    stopped: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = copied(stopped["ppo"], tmp_path / "run")
    document = (run_dir / "config.json").read_bytes()
    there = {"versions": {"torch": "9.9"}, "git_commit": "c0ffee"}
    monkeypatch.setattr(lifecycle, "provenance", lambda: there)
    resume(run_dir, console=quiet(), command=["train", "--resume"])
    first, second = json.loads((run_dir / "attempts.json").read_text())["attempts"]
    assert first == {**first, **{key: json.loads(document)[key] for key in MADE_BY}}
    assert second == {**second, "command": ["train", "--resume"], "provenance": there}
    assert (run_dir / "config.json").read_bytes() == document


def test_torch_gets_its_threads_back(whole: dict[str, Path]) -> None:
    before = torch.get_num_threads()
    with training.use_threads(1):
        assert torch.get_num_threads() == 1
    with pytest.raises(ZeroDivisionError), training.use_threads(1):
        raise ZeroDivisionError
    assert torch.get_num_threads() == before


def test_the_default_directory_names_the_run() -> None:
    name = default_run_dir(replace(PPO, env="ALE/Pong-v5", seed=12))
    assert name.parent == Path("runs")
    assert name.name.startswith("Pong-v5-ppo-lenet-seed12-")
    assert ":" not in default_run_dir(PPO).name


def test_runs_begun_in_one_second_get_names_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "default_run_dir", lambda config: tmp_path / "run")
    short = replace(TINY, env="support.games:Signals-v0", total_steps=16, eval_episodes=0)
    names = [train(short, console=quiet()).name for _ in range(2)]
    assert names == ["run", "run-2"]


# -- stopping and resuming -------------------------------------------------------------------------


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
        # Environments began anew, so what they told differs; when it was told does not.
        assert [row["step"] for row in after] == [row["step"] for row in uninterrupted]
        assert [sorted(row) for row in after] == [sorted(row) for row in uninterrupted]
    assert_told_once(run_dir)
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
    assert_told_once(run_dir)
    assert steps_of(run_dir, "eval/mean_return") == [112, 208, 304, 320]
    assert steps_of(run_dir, "video/game") == [112, 208, 304, 320]
    assert len(list((run_dir / "videos").iterdir())) == 4


def test_a_stop_cuts_no_checkpoint_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cut: list[int] = []
    save = training.save_checkpoint

    def told(model: Any, *args: Any, **kwargs: Any) -> None:
        cut.append(model.num_timesteps)
        save(model, *args, **kwargs)

    monkeypatch.setattr(training, "save_checkpoint", told)
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
    assert_told_once(runs[0])
    if algo == "ppo":
        assert steps_of(runs[0], "train/loss") == list(range(16, 209, 16))


def tensorboard_restarts(run_dir: Path) -> list[int]:
    """The steps from which TensorBoard is told that what it holds was done again."""
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
    assert "is passed over" in out.getvalue()
    assert "resuming from step 64" in out.getvalue()
    assert steps_of(run_dir, "rollout/ep_rew_mean") == list(range(16, 129, 16))


def test_without_a_whole_checkpoint_it_is_refused(stopped: dict[str, Path], tmp_path: Path) -> None:
    run_dir = copied(stopped["ppo"], tmp_path / "run")
    for path in (run_dir / "checkpoints").iterdir():
        (path / "optimizer.pt").write_bytes(b"")
    before = (run_dir / "metrics.jsonl").read_bytes()
    with pytest.raises(UserError, match=r"no checkpoint of run .* is whole; begin anew with"):
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
        with pytest.raises(UserError, match="is done: it took its 320 steps") as told:
            resume(run_dir, changes, console=quiet())
        assert "--total-steps 640" in str(told.value)
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


def test_a_run_is_not_made_over_another(whole: dict[str, Path]) -> None:
    before = rows_of(whole["ppo"])
    with pytest.raises(UserError, match="exists and is not empty"):
        train(PPO, whole["ppo"], console=quiet())
    assert rows_of(whole["ppo"]) == before


# -- when things go wrong --------------------------------------------------------------------------


def finite(checkpoint: Path) -> bool:
    return all(t.isfinite().all() for t in load_file(checkpoint / "policy.safetensors").values())


@BOTH
def test_a_loss_that_is_not_finite_stops_before_anything_is_saved(
    algo: str, stopped: dict[str, Path], tmp_path: Path
) -> None:
    run_dir = copied(stopped[algo], tmp_path / "run")
    document = json.loads((run_dir / "config.json").read_text())
    document["config"][algo]["learning_rate"] = 1e38
    document["config"][algo]["learning_rate_schedule"] = "constant"
    (run_dir / "config.json").write_text(json.dumps(document))
    before = checkpoint_steps(run_dir)
    with pytest.raises(UserError, match=r"\Athe loss became (nan|-?inf) by step \d+: [^\n]*\Z"):
        resume(run_dir, console=quiet())
    assert set(before) <= {*checkpoint_steps(run_dir)}
    assert all(map(finite, RunDirectory.open(run_dir).checkpoints()))


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """A block in which the operating system refuses to write files beyond so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@DQN_FIRST
def test_a_full_disk_loses_nothing_that_was_saved(
    algo: str, stopped: dict[str, Path], tmp_path: Path
) -> None:
    run_dir = copied(stopped[algo], tmp_path / "run")
    before = checkpoint_steps(run_dir)
    newest = RunDirectory.open(run_dir).checkpoints()[-1]
    limit = max(file.stat().st_size for file in newest.iterdir()) // 2
    with (
        largest_file(limit),
        pytest.raises(UserError, match=r"\Acannot write [^\n]* file size\Z"),
    ):
        resume(run_dir, console=quiet())
    run = RunDirectory.open(run_dir)
    assert checkpoint_steps(run_dir) == before
    assert run.latest_whole() == (newest, [])
    assert [path.name for path in (run_dir / "checkpoints").glob(".*")] == []
    resume(run_dir, {"total_steps": 144}, console=quiet())
    assert RunDirectory.open(run_dir).summary() is not None


@BOTH
def test_too_small_a_disk_is_told_before_the_start(
    algo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(builder.shutil, "disk_usage", lambda path: usage._replace(free=10_000))
    config = {"ppo": PPO, "dqn": DQN}[algo]
    said = r"\Acheckpoints in [^\n]* may take [^\n]*, but [^\n]* has 0\.00 GB [^\n]*\Z"
    with pytest.raises(UserError, match=said) as told:
        train(config, tmp_path / "deep" / "run", console=quiet())
    assert ("--no-save-replay" in str(told.value)) == (algo == "dqn")
    assert not (tmp_path / "deep").exists()


def test_what_a_run_holds_already_counts_as_room_for_it(
    whole: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = copied(whole["dqn"], tmp_path / "run")
    held = sum(file.stat().st_size for file in run_dir.glob("checkpoints/*/*"))
    usage = shutil.disk_usage(tmp_path)
    config = replace(DQN, keep_checkpoints=1)
    with training.use_threads(1):
        venv = builder.make_train_env(config)
        model = builder.build_agent(config, venv)
        replay = model.setup_replay().nbytes  # type: ignore[union-attr]
        parameters = sum(p.numel() * 4 for p in model.policy.parameters())
        needed = 2 * replay + 3 * 2 * parameters
        for free, fits in ((needed - held, True), (needed - held - 1, False)):
            monkeypatch.setattr(
                builder.shutil, "disk_usage", lambda path, free=free: usage._replace(free=free)
            )
            if fits:
                builder.check_resources(model, config, run_dir)
            else:
                with pytest.raises(UserError, match="checkpoints in"):
                    builder.check_resources(model, config, run_dir)
        venv.close()


def test_too_small_a_memory_is_told_before_the_start(tmp_path: Path) -> None:
    config = replace(DQN, dqn=replace(DQN.dqn, buffer_size=2 * 10**9))
    with pytest.raises(UserError, match=r"\Aa replay of 2,000,000,000 transitions needs [^\n]*\Z"):
        train(config, tmp_path / "run", console=quiet())
    assert not (tmp_path / "run").exists()


# -- load_agent ------------------------------------------------------------------------------------


@BOTH
def test_an_agent_is_loaded_as_it_was_saved(algo: str, stopped: dict[str, Path]) -> None:
    model = load_agent(stopped[algo], device="cpu")
    stored, loaded = learned(stopped[algo])["policy"], model.policy.state_dict()
    # What stands under several names is stored under one.
    assert_equal(stored, {name: loaded[name] for name in stored})
    actions, _ = model.predict(np.zeros((5, 2, 36, 36), np.uint8), deterministic=True)
    assert actions.shape == (5,)


def test_to_play_only_the_policy_need_be_whole(stopped: dict[str, Path], tmp_path: Path) -> None:
    run_dir = copied(stopped["dqn"], tmp_path / "run")
    newest = RunDirectory.open(run_dir).checkpoints()[-1]

    def harm(name: str) -> None:
        data = (newest / name).read_bytes()
        (newest / name).write_bytes(data[:-1] + bytes([data[-1] ^ 0xFF]))

    harm("replay.safetensors")
    for wanted in (None, newest):
        assert load_agent(run_dir, checkpoint=wanted).num_timesteps == int(newest.name)
    # To go on, all of it must be.
    assert RunDirectory.open(run_dir).latest_whole()[0] != newest
    harm("policy.safetensors")
    assert load_agent(run_dir).num_timesteps < int(newest.name)
    with pytest.raises(UserError, match=r"is damaged: the contents of policy\.safetensors"):
        load_agent(run_dir, checkpoint=newest)


def test_an_older_agent_can_be_loaded(whole: dict[str, Path]) -> None:
    older, newest = RunDirectory.open(whole["ppo"]).checkpoints()
    models = [load_agent(whole["ppo"], checkpoint=path, device="cpu") for path in (older, newest)]
    weights = [model.policy.action_net.weight for model in models]
    assert not torch.equal(*weights)


@BOTH
def test_an_agent_that_sees_colours_is_loaded(algo: str, tmp_path: Path) -> None:
    config = replace(
        {"ppo": PPO, "dqn": DQN}[algo],
        env="support.games:ColourSignals-v0",
        obs="rgb",
        total_steps=64,
        eval_episodes=0,
        encoder="nature",
    )
    train(config, tmp_path / "run", console=quiet())
    model = load_agent(tmp_path / "run")
    assert model.observation_space.shape == (6, 36, 36)
    action, _ = model.predict(np.zeros((6, 36, 36), np.uint8))
    assert int(action) in range(4)


def test_there_must_be_something_to_load(stopped: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        load_agent(tmp_path / "nowhere")
    run_dir = copied(stopped["ppo"], tmp_path / "run")
    shutil.rmtree(run_dir / "checkpoints")
    with pytest.raises(UserError, match="has no whole checkpoint yet"):
        load_agent(run_dir)
    with pytest.raises(UserError, match='unknown device "gpu"'):
        load_agent(stopped["ppo"], device="gpu")
