"""What fails beside learning costs a line; what fails in a game costs no more than that game."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import imageio_ffmpeg
import numpy as np
import pytest
from rich.console import Console
from support.games import Signals
from support.tiny_agents import TINY

from agents.config import DQNConfig, TrainConfig
from agents.evaluate.assessment import assess_run
from agents.train.run_length import last_step, notes_on_length
from agents.train.training import resume, train
from envs.errors import EnvironmentFailure, UserError
from rlcnn.runs.directory import RunDirectory

DQN = replace(
    TINY,
    algo="dqn",
    dqn=DQNConfig(buffer_size=200, learning_starts=8, batch_size=8, target_update_interval=50),
)


class Fragile(Signals):
    """Raises in the step after ``limit`` steps of all its environments together; may not render."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}  # noqa: RUF012
    limit: float = float("inf")
    taken = 0

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__()
        self.render_mode = render_mode

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        if Fragile.taken >= self.limit:
            raise ValueError("the level is missing")
        Fragile.taken += 1
        return super().step(action)

    def render(self) -> Any:
        raise RuntimeError("no display")


@pytest.fixture
def fragile(monkeypatch: pytest.MonkeyPatch) -> Iterator[TrainConfig]:
    gym.register("Fragile-v0", Fragile)
    monkeypatch.setattr(Fragile, "taken", 0)
    yield replace(TINY, env="Fragile-v0", eval_episodes=1)
    del gym.registry["Fragile-v0"]


def console() -> tuple[Console, io.StringIO]:
    said = io.StringIO()
    return Console(file=said, width=300), said


# -- films -----------------------------------------------------------------------------------------


def test_a_camera_that_fails_costs_a_line_and_observations_are_filmed(
    fragile: TrainConfig, tmp_path: Path
) -> None:
    to, said = console()
    run = train(replace(fragile, video_every=16), tmp_path / "run", console=to)
    assert len(list((run / "videos").glob("*.mp4"))) == 2
    lines = said.getvalue().splitlines()
    printed = [
        line for line in lines if "films show what the agent observes: render() raised" in line
    ]
    assert len(printed) == 1
    assert lines.index(printed[0]) < next(i for i, line in enumerate(lines) if "watch:" in line)


def _full(path: Path) -> str:
    path.write_text("#!/bin/sh\necho No space left on device >&2\nexit 1\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("what", ["encoder", "game", "camera"])
def test_no_film_ends_a_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise KeyError("anything")

    if what == "encoder":
        encoder = _full(tmp_path / "encoder")
        monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: encoder)
    elif what == "game":
        monkeypatch.setattr("envs.films.game.FilmedGame.__iter__", fail)
    else:
        monkeypatch.setattr("envs.films.lens.make_env", fail)
    to, said = console()
    config = replace(TINY, env="support.games:Signals-v0", video_every=16)
    run = train(config, tmp_path / "run", console=to)
    assert said.getvalue().count("not filmed: ") == 2
    summary = RunDirectory.open(run).summary()
    assert summary is not None
    assert (summary["steps"], summary["video"]) == (32, None)
    assert summary["eval"]["episodes"] == 2
    assert list((run / "videos").iterdir()) == []
    if what == "encoder":
        # What was asked for beside a film is not lost; a film alone is refused.
        assessment = assess_run(run, episodes=1, videos=2, console=to)
        assert (len(assessment.films), assessment.to_json()["eval"]["episodes"]) == (0, 1)
        with pytest.raises(UserError, match="No space left on device"):
            assess_run(run, episodes=0, videos=1, console=to)


# -- games -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("algo", ["ppo", "dqn"])
def test_an_environment_that_raises_leaves_what_was_learned(
    fragile: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, algo: str
) -> None:
    monkeypatch.setattr(Fragile, "limit", 41)
    config = replace(fragile if algo == "ppo" else DQN, env="Fragile-v0")
    config = replace(config, total_steps=64, checkpoint_every=0, eval_episodes=1)
    run = tmp_path / "run"
    with pytest.raises(EnvironmentFailure) as caught:
        train(config, run, console=console()[0])
    said = str(caught.value)
    # Its own error first, the way on last, all in one line.
    assert said.startswith('"Fragile-v0" raised ValueError: the level is missing (')
    assert said.endswith(f"go on with --resume {run}")
    assert "\n" not in said
    assert isinstance(caught.value.__cause__, EnvironmentFailure)
    # Two whole rollouts of 16 steps; or all whole steps of both environments.
    step = {"ppo": 32, "dqn": 40}[algo]
    assert f"checkpoint of step {step}:" in said
    assert [int(path.name) for path in RunDirectory.open(run).checkpoints()] == [step]

    monkeypatch.setattr(Fragile, "limit", float("inf"))
    to, printed = console()
    resume(run, console=to)
    assert f"resuming from step {step}" in printed.getvalue()
    summary = RunDirectory.open(run).summary()
    assert summary is not None
    assert summary["steps"] == 64
    rows = RunDirectory.open(run).metrics()
    steps = [row["step"] for row in rows if "rollout/ep_rew_mean" in row]
    assert len(set(steps)) == len(steps)


def test_one_that_raises_before_anything_was_learned_can_be_begun_again(
    fragile: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Fragile, "limit", 3)
    with pytest.raises(EnvironmentFailure, match="Nothing was learned yet: go on with --resume"):
        train(fragile, tmp_path / "run", console=console()[0])
    monkeypatch.setattr(Fragile, "limit", float("inf"))
    resume(tmp_path / "run", console=console()[0])
    assert RunDirectory.open(tmp_path / "run").summary() is not None


def test_one_that_raises_at_its_first_reset_is_one_error(
    fragile: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reset(self: Fragile, **options: Any) -> Any:
        raise ValueError("the level is missing")

    with monkeypatch.context() as broken:
        broken.setattr(Fragile, "reset", reset)
        with pytest.raises(EnvironmentFailure, match="ValueError: the level is missing"):
            train(fragile, tmp_path / "run")
    resume(tmp_path / "run")


def test_one_that_raises_in_an_evaluation_is_evaluated_by_the_resume(
    fragile: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 32 steps of training, then the third of the game that is evaluated.
    monkeypatch.setattr(Fragile, "limit", 34)
    with pytest.raises(EnvironmentFailure, match="checkpoint of step 32: go on with --resume"):
        train(fragile, tmp_path / "run", console=console()[0])
    monkeypatch.setattr(Fragile, "limit", float("inf"))
    resume(tmp_path / "run", console=console()[0])
    summary = RunDirectory.open(tmp_path / "run").summary()
    assert summary is not None
    assert summary["eval"]["episodes"] == 1


# -- length ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_envs, freq, total", [(8, 4, 10), (1, 4, 10), (8, 4, 9), (8, 4, 8)])
@pytest.mark.parametrize("start", [0, 5])
def test_the_last_step_is_where_dqn_stops(num_envs: int, freq: int, total: int, start: int) -> None:
    step = start
    while step < total:
        # As DQN.learn and collect_rollouts do.
        updates = (step // freq + 1) * freq
        while step < updates:
            step += num_envs
    config = replace(TINY, algo="dqn", num_envs=num_envs, total_steps=total)
    assert last_step(replace(config, dqn=DQNConfig(train_freq=freq)), start) == step


@pytest.mark.parametrize(
    ("config", "lines"),
    [
        (replace(TINY, total_steps=32), []),
        (replace(TINY, total_steps=100), ["takes 112 steps, not 100.*rollouts of 16 steps"]),
        # A thousandth more is not worth a line.
        (replace(TINY, total_steps=16_001), []),
        (replace(DQN, total_steps=32), []),
        (replace(DQN, total_steps=8), ["nothing is learned.*ends at step 8.*learning-starts 8"]),
        (
            replace(DQN, total_steps=10, dqn=DQNConfig(train_freq=50, learning_starts=60)),
            ["nothing is learned.*step 50.*learning-starts 60", "takes 50 steps, not 10.*train-fr"],
        ),
    ],
)
def test_a_surprising_length_costs_a_line(config: TrainConfig, lines: list[str]) -> None:
    notes = notes_on_length(config)
    assert len(notes) == len(lines)
    for note, line in zip(notes, lines, strict=True):
        assert re.search(line, note)
        assert "\n" not in note


def test_a_resume_counts_the_steps_that_the_replay_holds() -> None:
    config = replace(DQN, total_steps=40, dqn=replace(DQN.dqn, learning_starts=16))
    assert notes_on_length(config, step=20, stored_steps=20) == []
    assert len(notes_on_length(config, step=30)) == 1
    assert notes_on_length(config, step=40) == []


def test_a_training_that_learns_nothing_says_so_before_it_starts(tmp_path: Path) -> None:
    to, said = console()
    config = replace(DQN, env="support.games:Signals-v0", eval_episodes=0, total_steps=8)
    train(config, tmp_path / "run", console=to)
    lines = said.getvalue().splitlines()
    note = next(i for i, line in enumerate(lines) if "nothing is learned in this training" in line)
    assert note < next(i for i, line in enumerate(lines) if line.startswith("checkpoint:"))


# -- epsilon ---------------------------------------------------------------------------------------


def test_epsilon_does_not_rise_in_a_run_that_is_extended(tmp_path: Path) -> None:
    def epsilons(run: Path) -> dict[int, float]:
        key = "rollout/exploration_rate"
        return {row["step"]: row[key] for row in RunDirectory.open(run).metrics() if key in row}

    options = replace(DQN.dqn, exploration_fraction=1.0, exploration_final_eps=0.1)
    config = replace(
        DQN, env="support.games:Signals-v0", eval_episodes=0, total_steps=96, dqn=options
    )
    run = train(config, tmp_path / "run", console=console()[0])
    before = epsilons(run)
    assert min(before.values()) == pytest.approx(0.1)
    to, said = console()
    resume(run, {"total_steps": 192}, console=to)
    assert "epsilon stays at 0.1: the schedule of the longer run would raise it to 0.55" in (
        said.getvalue()
    )
    after = epsilons(run)
    assert {after[step] for step in after.keys() - before.keys()} == {min(before.values())}
