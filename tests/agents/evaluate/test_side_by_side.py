"""Films of several runs' agents on games of one seed."""

from __future__ import annotations

import io
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from rich.console import Console
from support.tiny_agents import TINY, as_dqn

from agents.config import TrainConfig, read_config
from agents.evaluate import side_by_side
from agents.evaluate.side_by_side import SideBySide, film_runs, track_films
from agents.train.builder import build_agent, make_train_env
from agents.train.training import train
from envs.errors import UserError
from envs.films.game import FilmedGame
from rlcnn.runs.directory import RunDirectory

SIGNALS = replace(TINY, env="support.games:Signals-v0", eval_episodes=0)


def read_film(path: Path) -> tuple[dict[str, Any], np.ndarray]:
    """What the file says of itself, and its pictures (n, height, width, 3)."""
    frames = imageio_ffmpeg.read_frames(str(path))
    about = next(frames)
    width, height = about["size"]
    return about, np.stack([np.frombuffer(f, np.uint8).reshape(height, width, 3) for f in frames])


def trained(config: TrainConfig, path: Path) -> str:
    train(config, path, console=Console(file=io.StringIO()))
    return str(path)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Runs of PPO and DQN with other observations."""
    directory = tmp_path_factory.mktemp("runs")
    dqn = as_dqn(replace(SIGNALS, obs="rgb", frame_stack=1), buffer_size=100, learning_starts=8)
    return [trained(SIGNALS, directory / "ppo"), trained(dqn, directory / "dqn")]


def film(runs: list[str], directory: Path, **options: Any) -> list[SideBySide]:
    return film_runs(runs, directory, console=Console(file=io.StringIO()), **options)


@pytest.mark.parametrize("overlay", [False, True])
def test_every_agent_plays_the_games_of_the_same_seeds(
    runs: list[str], tmp_path: Path, overlay: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[FilmedGame] = []
    make = side_by_side._open_game

    def recorded(*arguments: Any) -> FilmedGame:
        opened.append(make(*arguments))
        return opened[-1]

    monkeypatch.setattr(side_by_side, "_open_game", recorded)
    # An earlier checkpoint is an agent of its own.
    agents = [*runs, f"{runs[0]}@16", f"{runs[1]}@0"]
    first, second = film(agents, tmp_path / "films", games=2, seed=5, overlay=overlay)
    kind = "-overlay" * overlay
    assert first.path.name == f"Signals-v0{kind}-seed5.mp4"
    assert second.path.name == f"Signals-v0{kind}-seed6.mp4"
    about, pictures = read_film(first.path)
    # The first observation and 8 steps, at the game's own rate.
    assert (len(pictures), about["fps"], first.frames) == (9, 30, 9)
    # The pictures have no path of the machine.
    assert first.lengths == dict.fromkeys(["ppo", "dqn", "ppo@16", "dqn@0"], 8)
    assert first.caption.startswith("seed 5 | returns: ppo ")
    # What is lit in a game is decided by its seed alone.
    starts = [game._lens.unwrapped.np_random_seed for game in opened]
    assert len(set(starts[:4])) == len(set(starts[4:])) == 1
    assert starts[0] != starts[4]


def test_directories_of_one_name_are_told_apart_by_their_paths() -> None:
    assert side_by_side._short_names(["a/run", "b/other@0"]) == ["run", "other@0"]
    assert side_by_side._short_names(["a/run", "b/run"]) == ["a/run", "b/run"]
    assert side_by_side._short_names(["a/run", "."]) == ["a/run", "."]


def test_step_0_is_the_untrained_agent(runs: list[str]) -> None:
    for run in runs:
        config = read_config(RunDirectory.open(Path(run)))
        with closing(make_train_env(config)) as venv:
            began = build_agent(config, venv).policy.state_dict()
        loaded, trained = (side_by_side._load(run, step, "cpu") for step in ("0", None))
        assert loaded.num_timesteps == 0
        for name, tensor in loaded.policy.state_dict().items():
            assert torch.equal(tensor, began[name]), name
        last = trained.policy.state_dict()
        assert any(not torch.equal(tensor, last[name]) for name, tensor in began.items())


def test_a_game_that_is_over_keeps_its_last_picture_faded(tmp_path: Path) -> None:
    class Game:
        def __init__(self, pictures: int) -> None:
            self.pictures = pictures

        def __iter__(self) -> Any:
            return iter([np.full((2, 2, 3), 30 * n, np.uint8) for n in range(self.pictures)])

    games: Any = [Game(1), Game(3)]
    shown = [[int(p[0, 0, 0]) for p in pair] for pair in side_by_side._together(games)]
    assert shown == [[0, 0], [170, 30], [170, 60]]


def test_games_end_where_they_are_told_to(runs: list[str], tmp_path: Path) -> None:
    (made,) = film(runs, tmp_path, max_steps=3)
    assert set(made.lengths.values()) == {3}
    assert made.frames == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"env": "support.games:ColourSignals-v0"}, 'plays "support.games:ColourSignals-v0", but'),
        ({"env_kwargs": {"length": 4}}, "with other --env-kwargs, --env-wrapper or --obs-key than"),
    ],
)
def test_runs_of_other_games_are_refused_and_nothing_is_written(
    runs: list[str], tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    other = trained(replace(SIGNALS, total_steps=16, **changes), tmp_path / "other")
    with pytest.raises(UserError, match=message) as refusal:
        film([runs[0], other], tmp_path / "films")
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "films").exists()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["{0}"], "side by side needs at least two runs: scripts/evaluate_agent.py RUN --video 1"),
        (["{0}", "{0}"], 'ppo" is given twice: give each once'),
        (["{0}", "{1}@5"], "has no checkpoint 5: it has those of step 16, 32"),
        (["{0}", "{1}/nowhere"], "dqn/nowhere does not exist"),
    ],
)
def test_runs_that_cannot_be_filmed_are_refused(
    runs: list[str], tmp_path: Path, names: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        film([name.format(*runs) for name in names], tmp_path / "films")
    assert not (tmp_path / "films").exists()


def test_films_and_returns_are_logged_to_weights_and_biases(
    runs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: list[dict[str, Any]] = []

    class Session:
        def log(self, values: dict[str, Any], **options: Any) -> None:
            logged.append(values)

        def finish(self) -> None:
            logged.append({})

    monkeypatch.setattr(side_by_side, "start_wandb", lambda *_, **__: Session())
    films = film(runs, tmp_path, max_steps=2)
    track_films(films, {}, tmp_path, "disabled", "rlcnn")
    assert not logged
    track_films(films, {}, tmp_path, "offline", "rlcnn")
    values, end = logged
    assert not end
    video = values.pop("video/seed0")
    assert type(video).__name__ == "Video"
    assert values == {f"return/{n}/seed0": score for n, score in films[0].returns.items()}
