"""Splits of consecutive observations: whole games in order, with their actions."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from envs.protocol import get_protocol
from rlcnn.data.atari import playing
from rlcnn.data.atari.collecting import episode_seed
from rlcnn.data.atari.dataset import play_frames
from rlcnn.data.atari.emulator import AtariGame
from rlcnn.data.atari.options import FrameOptions, PolicyPlay
from rlcnn.data.atari.playing import EpisodeRecord, EpisodeSpec, play_in_turn
from rlcnn.data.images import UNKNOWN, Split, StackedFrames

OPTIONS = FrameOptions(
    train_frames=150, test_frames=100, obs_size=20, max_episode_steps=60, min_entropy=0.0
)


def parts(split: Split) -> list[StackedFrames]:
    found = [part for part in split if isinstance(part, StackedFrames)]
    assert len(found) == 2
    return found


@pytest.fixture(scope="module")
def split() -> Split:
    return play_frames(["Breakout", "Pong"], OPTIONS, seed=3, consecutive=True)


def test_there_are_all_observations_of_each_game_in_order(split: Split) -> None:
    for part, wanted in zip(parts(split), (150, 100), strict=True):
        assert len(part) == 2 * wanted
        assert part.episodes is not None
        ids = part.episodes.ids
        assert (ids.diff() >= 0).all()
        following = (ids.diff() == 0).nonzero()[:, 0]
        # The newest frames of one observation are the older ones of the next.
        assert torch.equal(part.stacks[following, 1:], part.stacks[following + 1, :-1])


def test_the_actions_replay_the_game(split: Split) -> None:
    train = parts(split)[0]
    assert train.episodes is not None
    assert train.actions is not None
    rows = (train.episodes.ids == 0).nonzero()[:, 0]
    game = AtariGame("breakout", get_protocol("classic"), obs_size=20)
    game.reseed(episode_seed(3, "train", 0))
    frame: np.ndarray | None = game.reset()
    for row in rows.tolist():
        if row:
            name = train.actions.names[int(train.actions.taken[row])]
            frame, _ = game.step(game.actions.index(name))
        else:
            assert train.actions.taken[row] == UNKNOWN
        assert frame is not None
        assert np.array_equal(train[row].numpy()[-1:], frame)


def test_games_share_the_numbers_of_actions_of_one_name(split: Split) -> None:
    train = parts(split)[0]
    assert train.actions is not None
    # Breakout's first, and then what Pong has besides.
    assert train.actions.names == ("NOOP", "FIRE", "RIGHT", "LEFT", "RIGHTFIRE", "LEFTFIRE")
    assert parts(split)[1].actions is not None
    assert set(train.actions.taken.tolist()) == {UNKNOWN, *range(6)}


def test_an_observation_that_occurred_before_has_no_labels(split: Split) -> None:
    seen: set[bytes] = set()
    repeats = 0
    for part in parts(split):
        for row in range(len(part)):
            observation = part[row].numpy().tobytes()
            if observation in seen:
                repeats += 1
                assert (part.labels[row] == UNKNOWN).all()
            else:
                assert (part.labels[row] != UNKNOWN).any()
            seen.add(observation)
    assert repeats > 10


def test_it_is_cached_apart_from_single_observations(tmp_path: Path) -> None:
    played = [
        play_frames(["Pong"], OPTIONS, seed=0, data_dir=tmp_path, consecutive=consecutive)
        for consecutive in (True, False, True)
    ]
    assert len(list((tmp_path / "atari-frames").iterdir())) == 2
    one, single, again = (parts(each)[0] for each in played)
    assert single.actions is None
    assert one.actions is not None
    assert again.actions is not None
    for name in ("frames", "stacks", "labels"):
        assert torch.equal(getattr(one, name), getattr(again, name))
    assert torch.equal(one.actions.taken, again.actions.taken)
    assert one.about["consecutive"]
    assert "consecutive" not in single.about
    assert "random_share" not in single.about["options"]


def record(length: int) -> EpisodeRecord:
    frames = np.zeros((length, 1, 2, 2), dtype=np.uint8)
    return EpisodeRecord(frames, [], frames, np.zeros(length), np.zeros(length))


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_random_play_gets_its_share_of_the_frames(share: float) -> None:
    used: dict[str, list[int]] = {"policy": [], "random": []}

    def player(name: str, length: int) -> Any:
        def play(specs: Iterable[EpisodeSpec]) -> Generator[EpisodeRecord, None, None]:
            for spec in specs:
                used[name].append(spec.seed)
                yield record(length)

        return play

    specs = (EpisodeSpec("pong", get_protocol("classic"), "grey", 2, 9, 0.0, n) for n in range(99))
    played = play_in_turn(
        specs, by_policy=player("policy", 30), at_random=player("random", 10), random_share=share
    )
    frames = [len(next(played).frames) for _ in range(40)]
    assert frames.count(10) * 10 / sum(frames) == pytest.approx(share, abs=0.05)
    assert not set(used["policy"]) & set(used["random"])
    if 0 < share < 1:
        assert used["policy"] == list(range(0, 2 * len(used["policy"]), 2))


def test_a_policy_and_random_play_are_mixed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(playing, "LANES", 1)
    # The policy never moves.
    still = PolicyPlay(lambda images: np.zeros(len(images), dtype=np.int64), exploration=0.0)
    options = FrameOptions(
        train_frames=200,
        test_frames=100,
        obs_size=20,
        max_episode_steps=50,
        random_share=0.5,
        min_entropy=0.0,
    )
    split = play_frames(["Pong"], options, seed=0, policies={"Pong": still}, consecutive=True)
    train = parts(split)[0]
    assert train.actions is not None
    assert train.episodes is not None
    # NOOP for a policy's whole game; a random one has others, too.
    moved = [
        bool((train.actions.taken[train.episodes.ids == episode] > 0).any())
        for episode in train.episodes.ids.unique()
    ]
    assert moved == [False, True, False, True]
    assert train.about["options"]["random_share"] == 0.5
