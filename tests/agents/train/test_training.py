"""Whole training runs: what they repeat, when they do what, and what they leave behind."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.agent_runs import (
    BOTH,
    DQN,
    PPO,
    PPO_FIRST,
    assert_logged_once,
    copied,
    quiet,
    steps_of,
)
from support.run_files import assert_equal, checkpoint_steps, learned, rows_of
from support.tiny_agents import TINY

from agents import config as configuration
from agents import load_agent
from agents.config import read_config
from agents.evaluate.assessment import assess_run
from agents.evaluate.evaluation import evaluate_agent
from agents.train import training
from agents.train.training import Training, default_run_dir, resume, train
from envs.errors import UserError
from envs.protocol import PROTOCOLS
from rlcnn.accelerate import devices
from rlcnn.runs import lifecycle
from rlcnn.runs.directory import RunDirectory

METADATA = ("command", "provenance")

# -- repeating -------------------------------------------------------------------------------------


@pytest.fixture
def short_games() -> Iterator[None]:
    """Games of the emulator that a test has time for."""
    with pytest.MonkeyPatch.context() as patch:
        short = replace(PROTOCOLS["classic"], max_episode_steps=30)
        patch.setitem(PROTOCOLS, "classic", short)
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
    game = {"env": "ALE/Breakout-v5", "eval_every": 100, "eval_episodes": 1}
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


def test_periodic_actions_happen_at_their_steps(whole: dict[str, Path]) -> None:
    # The first step between two updates at or after each multiple; the last is the final one.
    assert steps_of(whole["ppo"], "eval/mean_return") == [112, 208, 304, 320]
    assert steps_of(whole["dqn"], "eval/mean_return") == [100, 200, 300, 320]
    for run_dir in whole.values():
        assert checkpoint_steps(run_dir) == [256, 320]
        assert steps_of(run_dir, "video/game") == [320]
    assert steps_of(whole["ppo"], "rollout/ep_rew_mean") == list(range(16, 321, 16))


def test_every_update_is_logged_under_its_own_step(whole: dict[str, Path], tmp_path: Path) -> None:
    assert steps_of(whole["ppo"], "train/loss") == list(range(16, 321, 16))
    rates = [row["train/learning_rate"] for row in rows_of(whole["ppo"]) if "train/loss" in row]
    assert rates == pytest.approx([PPO.ppo.learning_rate * (1 - n / 20) for n in range(1, 21)])
    assert learned(whole["ppo"])["state"]["pending"] == {}

    # Games end every 16 steps, and every fourth is logged; no game ends with the run.
    config = replace(DQN, total_steps=120, eval_episodes=0)
    run_dir = train(config, tmp_path / "run", console=quiet())
    assert steps_of(run_dir, "train/loss") == [64, 96, 120]
    assert learned(run_dir)["state"]["losses"] == [0, 0, 0]
    resume(run_dir, {"total_steps": 136}, console=quiet())
    assert steps_of(run_dir, "train/loss") == [64, 96, 120, 136]
    assert_logged_once(run_dir)


def test_evaluations_before_the_last_may_be_of_few_and_short_games(tmp_path: Path) -> None:
    cheap = {"interim_episodes": 1, "interim_max_steps": 3, "video_every": 0}
    config = replace(PPO, total_steps=96, eval_every=40, eval_episodes=2, **cheap)
    run_dir = train(config, tmp_path / "run", console=quiet())
    rows = [row for row in rows_of(run_dir) if "eval/episodes" in row]
    assert [row["eval/episodes"] for row in rows] == [1, 1, 2]
    assert [row["eval/mean_length"] for row in rows[:2]] == [3, 3]
    assert rows[2]["eval/mean_length"] > 3


def test_by_default_the_untrained_agent_every_evaluation_and_the_end_are_filmed(
    tmp_path: Path,
) -> None:
    config = replace(PPO, total_steps=96, eval_every=40, eval_episodes=1, video_every=None)
    run_dir = train(config, tmp_path / "run", console=quiet())
    assert steps_of(run_dir, "eval/mean_return") == [48, 80, 96]
    assert steps_of(run_dir, "video/game") == [0, 48, 80, 96]
    resume(run_dir, {"total_steps": 112}, console=quiet())
    assert steps_of(run_dir, "video/game") == [0, 48, 80, 96, 112]
    # Without evaluations, the first and the last agent remain.
    config = replace(config, total_steps=32, eval_episodes=0)
    assert steps_of(train(config, tmp_path / "other", console=quiet()), "video/game") == [0, 32]


def test_films_are_made_at_their_steps(tmp_path: Path) -> None:
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
def test_the_summary_has_the_results(algo: str, whole: dict[str, Path]) -> None:
    run_dir = whole[algo]
    summary = RunDirectory.open(run_dir).summary()
    assert summary is not None
    assert summary["steps"] == 320
    assert summary["steps_per_second"] > 0
    assert summary["wall_seconds"] > 320 / summary["steps_per_second"] * 0.99
    evaluation = summary["eval"]
    assert evaluation["episodes"] == len(evaluation["returns"]) == len(evaluation["lengths"]) == 3
    assert evaluation["mean_return"] == np.mean(evaluation["returns"])
    assert evaluation["std"] == pytest.approx(np.std(evaluation["returns"], ddof=1))
    assert evaluation["protocol"]["name"] == "classic"
    (row,) = (row for row in rows_of(run_dir) if row["step"] == 320 and "eval/std" in row)
    assert row["eval/mean_return"] == evaluation["mean_return"]
    assert (run_dir / summary["video"]).exists()


@BOTH
def test_the_agent_of_a_run_plays_the_games_of_the_summary(
    algo: str, whole: dict[str, Path]
) -> None:
    config = read_config(RunDirectory.open(whole[algo]))
    model = load_agent(whole[algo], device="cpu")
    summary = RunDirectory.open(whole[algo]).summary()
    assert summary is not None
    assert evaluate_agent(model, config).to_json() == summary["eval"]


@BOTH
def test_a_stopped_agent_plays_the_games_of_its_step(algo: str, stopped: dict[str, Path]) -> None:
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


def test_resolved_options_are_stored_and_used_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "resolve_precision", lambda device: "bf16")
    monkeypatch.setattr(configuration, "usable_cores", lambda: 1)
    auto = {"device": "auto", "precision": "auto", "compile": "auto", "num_threads": 0}
    config = replace(PPO, total_steps=32, eval_episodes=0, **auto)
    run_dir = train(config, tmp_path / "run", console=quiet())
    resolved = {"precision": "bf16", "compile": "off", "num_threads": 1}
    written = json.loads((run_dir / "config.json").read_text())["config"]
    assert written["device"] == ("cuda" if torch.cuda.is_available() else "cpu")
    assert {key: written[key] for key in resolved} == resolved

    monkeypatch.setattr(devices, "resolve_precision", lambda device: "fp32")
    monkeypatch.setattr(configuration, "usable_cores", lambda: 2)
    resume(run_dir, {"total_steps": 64}, console=quiet())
    written = json.loads((run_dir / "config.json").read_text())["config"]
    assert {key: written[key] for key in resolved} == resolved
    assert load_agent(run_dir).policy.precision == "bf16"


def test_the_document_repeats_the_run(whole: dict[str, Path], tmp_path: Path) -> None:
    document = json.loads((whole["ppo"] / "config.json").read_text())
    assert {"torch", "python", "rlcnn"} <= document["provenance"]["versions"].keys()
    assert document["command"]
    assert read_config(whole["ppo"] / "config.json") == PPO.with_batch_size()


def test_every_attempt_records_its_command_and_provenance(
    stopped: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = copied(stopped["ppo"], tmp_path / "run")
    document = (run_dir / "config.json").read_bytes()
    there = {"versions": {"torch": "9.9"}, "git_commit": "c0ffee"}
    monkeypatch.setattr(lifecycle, "provenance", lambda: there)
    resume(run_dir, console=quiet(), command=["train", "--resume"])
    first, second = json.loads((run_dir / "attempts.json").read_text())["attempts"]
    assert first == {**first, **{key: json.loads(document)[key] for key in METADATA}}
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


def test_a_run_is_not_made_over_another(whole: dict[str, Path]) -> None:
    before = rows_of(whole["ppo"])
    with pytest.raises(UserError, match="exists and is not empty"):
        train(PPO, whole["ppo"], console=quiet())
    assert rows_of(whole["ppo"]) == before
