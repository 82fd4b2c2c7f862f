"""Labelled observations of games: whole splits out of the real emulator."""

import os
import shutil
from collections import Counter

import numpy as np
import pytest
import torch

from envs import UserError
from rlcnn.data.atari.collecting import episode_seed
from rlcnn.data.atari.dataset import play_frames
from rlcnn.data.atari.labels import normalised_entropy
from rlcnn.data.atari.options import FrameOptions, PolicyPlay
from rlcnn.data.by_name import load_data
from rlcnn.data.images import UNKNOWN

SMALL = {"train_frames": 400, "test_frames": 120, "max_episode_steps": 150}
LEAST = {"train_frames": 100, "test_frames": 100, "obs_size": 20}


def options(**changes) -> FrameOptions:
    return FrameOptions(**{**SMALL, **changes})


def observations(images) -> list[bytes]:
    return [images[i].numpy().tobytes() for i in range(len(images))]


def column(images, task: str) -> torch.Tensor:
    return images.labels[:, [each.name for each in images.tasks].index(task)]


def equal(one, other) -> bool:
    """Whether two splits are equal to the bit."""
    return one.train.tasks == other.train.tasks and all(
        torch.equal(getattr(a, field), getattr(b, field))
        for a, b in zip(one, other, strict=True)
        for field in ("frames", "stacks", "labels")
    )


@pytest.fixture(autouse=True)
def few_lanes(monkeypatch):
    """Policies play one game at a time: games side by side take an emulator each."""
    monkeypatch.setattr("rlcnn.data.atari.playing.LANES", 1)


@pytest.fixture(scope="module")
def two_games():
    labels = ("ram", "action", "reward", "game")
    return play_frames(["Pong", "ALE/Breakout-v5"], options(labels=labels), seed=1)


def test_there_are_as_many_as_wanted_and_no_two_are_equal(two_games):
    train, test = map(observations, two_games)
    assert (len(train), len(test)) == (800, 240)
    assert len({*train, *test}) == 1040
    assert two_games.train.image_shape == (4, 84, 84)
    for part, images in zip(("train", "test"), two_games, strict=True):
        counts = [each[part] for each in images.about["games"].values()]
        assert [each["observations"] for each in counts] == [len(images) // 2] * 2
        # 151 observations of each game at most.
        assert all(each["games"] >= len(images) / 2 / 151 for each in counts)


def test_each_frame_is_stored_once(two_games):
    frames = two_games.train.frames
    assert frames is two_games.test.frames or torch.equal(frames, two_games.test.frames)
    assert len({frame.numpy().tobytes() for frame in frames}) == len(frames)
    assert len(frames) < 1.2 * 1040
    assert not frames[0].any()


def test_gathering_equals_picking_one_by_one(two_games):
    indices = torch.tensor([5, 799, 0, 5])
    batch = two_games.train.gather(indices)
    assert (batch.shape, batch.dtype) == ((4, 4, 84, 84), torch.uint8)
    assert torch.equal(batch, torch.stack([two_games.train[int(i)] for i in indices]))


def test_tasks_of_one_game_are_unknown_in_the_other(two_games):
    for images in two_games:
        half = len(images) // 2
        for task in images.tasks:
            labels = column(images, task.name)
            if task.name == "game":
                assert task.classes == ("Pong", "Breakout")
                assert labels.tolist() == [0] * half + [1] * half
            else:
                others = labels[half:] if task.name.startswith("Pong/") else labels[:half]
                assert (others == UNKNOWN).all()
    known = column(two_games.train, "Pong/ball_x")[:400]
    assert (known != UNKNOWN).all()


def test_labels_are_of_the_newest_frame(two_games):
    """Where Pong's white ball is seen in the field, the label holds its column.

    The ball's left edge is RAM - 49 on a screen 160 wide (tests/rlcnn/data/atari/test_ram.py), or
    0.525 times that here, of one pixel and a half; and the max of two frames smears it.
    """
    train = two_games.train
    task = next(task for task in train.tasks if task.name == "Pong/ball_x")
    column_of = column(train, "Pong/ball_x")
    looked_at = 0
    for i in range(400):
        field = train[i][-1, 16:76, 12:68].int()
        bright = (field > field.mode().values.mode().values + 60).any(dim=0).nonzero() + 12
        if not 0 < len(bright) <= 4:
            continue
        low, _, high = task.classes[column_of[i]].partition("-")
        middle = (int(low) + int(high or low)) / 2 - 49
        assert abs(float(bright.float().mean()) - 0.525 * middle) < 6
        looked_at += 1
    assert looked_at > 20


def test_what_says_next_to_nothing_is_left_out(two_games):
    about = two_games.train.about
    left_out = {each["name"]: each["normalised_entropy"] for each in about["left_out"]}
    # The paddles move up and down only.
    assert left_out["Pong/player_x"] == left_out["Pong/enemy_x"] == 0
    assert max(left_out.values()) < 0.1
    names = [task.name for task in two_games.train.tasks]
    assert not {*names} & {*left_out}
    for task, row in zip(two_games.train.tasks, about["tasks"], strict=True):
        entropy = normalised_entropy(column(two_games.train, task.name).numpy(), len(task.classes))
        assert row["normalised_entropy"] == pytest.approx(entropy, abs=1e-4)
        assert entropy >= 0.1


@pytest.mark.parametrize("obs", ["grey", pytest.param("rgb", marks=pytest.mark.slow)])
def test_labels_and_pixels_are_those_of_the_policys_games(obs):
    seen, asked = [], []

    def policy(images):
        seen.extend(image.tobytes() for image in images)
        asked.extend(images.sum(axis=(1, 2, 3), dtype=np.int64) % 4)
        return np.array(asked[-len(images) :])

    split = play_frames(
        ["Breakout"],
        options(
            labels=("action",),
            obs=obs,
            obs_size=30,
            frame_stack=2,
            train_frames=150,
            test_frames=100,
        ),
        seed=0,
        policies={"Breakout": PolicyPlay(policy, exploration=0.0)},
    )
    assert split.train.image_shape == (2 if obs == "grey" else 6, 30, 30)
    assert {*observations(split.train), *observations(split.test)} <= {*seen}
    task = split.train.tasks[0]
    assert task == ("Breakout/action", ("NOOP", "FIRE", "RIGHT", "LEFT"))
    # The action is what the policy answered to the observation before, whose last frame is this
    # one's first.
    answers = dict(zip(seen, asked, strict=True))
    half = len(seen[0]) // 2
    shown = Counter(image[half:] for image in answers)
    previous = {image[half:]: answer for image, answer in answers.items()}
    labels = column(split.train, "Breakout/action").tolist()
    checked = 0
    for image, label in zip(observations(split.train), labels, strict=True):
        assert (label == UNKNOWN) == (not any(image[:half]))
        # Some frame may have been seen in two observations, with an answer to each.
        if shown[image[:half]] == 1:
            assert previous[image[:half]] == label
            checked += 1
    assert checked > 50


def test_shuffled_frames_are_the_true_ones_in_another_order(tmp_path):
    # The second time they are read from the disk.
    true, shuffled = (
        play_frames(["Pong"], options(labels=labels, obs_size=20), seed=4, data_dir=tmp_path)
        for labels in (("action",), ("action", "order"))
    )
    for before, after in zip(true, shuffled, strict=True):
        order, action = column(after, "Pong/order"), column(after, "Pong/action")
        half = int((order != UNKNOWN).sum()) // 2
        assert int((order == 0).sum()) == half > 40
        moved = (before.stacks != after.stacks).any(dim=1)
        assert torch.equal(moved, order == 0)
        assert torch.equal(before.stacks.sort(dim=1).values, after.stacks.sort(dim=1).values)
        assert (action[moved] == UNKNOWN).all()
        assert torch.equal(action[~moved], column(before, "Pong/action")[~moved])


class TestRepeating:
    @pytest.mark.slow
    def test_the_number_of_workers_changes_nothing(self):
        small = options(labels=("ram",), **LEAST)
        splits = [play_frames(["Breakout"], small, seed=3, workers=workers) for workers in (1, 2)]
        assert equal(*splits)

    def test_the_seed_changes_everything(self, two_games):
        other = play_frames(["Pong"], options(labels=("action",)), seed=2)
        pong = observations(two_games.train)[:400]
        # Games begin alike.
        assert len({*pong} & {*observations(other.train)}) < 100

    def test_no_game_is_played_in_both_parts(self):
        seeds = {part: {episode_seed(0, part, i) for i in range(500)} for part in ("train", "test")}
        assert not seeds["train"] & seeds["test"]
        assert all(len(each) == 500 and max(each) < 2**31 for each in seeds.values())


class TestKeptOnDisk:
    @staticmethod
    def play(data_dir, **changes):
        played = []
        split = play_frames(
            ["Pong"],
            options(**{"labels": ("ram",), **LEAST, **changes}),
            seed=1,
            data_dir=data_dir,
            on_progress=lambda game, new: played.append((game, new)),
        )
        return split, played

    @pytest.fixture(scope="class")
    def first(self, tmp_path_factory):
        """A folder where games were kept, their split, and what was played."""
        data_dir = tmp_path_factory.mktemp("kept")
        return data_dir, *self.play(data_dir)

    @pytest.fixture
    def data_dir(self, first, tmp_path):
        return shutil.copytree(first[0], tmp_path / "data")

    def test_the_second_time_nothing_is_played(self, first, data_dir):
        _, split, played = first
        assert {game for game, _ in played} == {"Pong"}
        assert sum(new for _, new in played) == 200
        again, played = self.play(data_dir)
        assert played == []
        assert equal(split, again)
        assert split.train.about == again.train.about

    def test_other_labels_need_no_other_games(self, data_dir):
        other, played = self.play(data_dir, labels=("action", "order"), min_entropy=0.0)
        assert played == []
        assert [task.name for task in other.train.tasks] == ["Pong/order", "Pong/action"]

    @pytest.mark.parametrize(
        "changes", [{"train_frames": 110}, {"obs_size": 21}, {"play": "random"}]
    )
    def test_other_games_are_played_for_other_options(self, data_dir, changes):
        _, played = self.play(data_dir, **changes)
        assert played

    def test_what_is_damaged_is_played_again(self, first, data_dir):
        (frames,) = data_dir.glob("atari-frames/Pong-*/frames.npy")
        content = bytearray(frames.read_bytes())
        content[5000] ^= 1
        frames.write_bytes(content)
        again, played = self.play(data_dir)
        assert played
        assert equal(first[1], again)
        assert self.play(data_dir)[1] == []

    def test_policies_are_kept_by_their_name_only(self, tmp_path):
        def still(images):
            return np.zeros(len(images), dtype=int)

        def kept(name):
            play_frames(
                ["Pong"],
                options(labels=("ram",), **LEAST),
                seed=1,
                data_dir=tmp_path,
                policies={"Pong": PolicyPlay(still, name=name)},
            )
            return len(list(tmp_path.glob("atari-frames/Pong-*")))

        assert [kept(""), kept("a"), kept("a")] == [0, 1, 1]

    def test_a_disk_that_refuses(self, tmp_path):
        (tmp_path / "atari-frames").write_text("a file")
        with pytest.raises(UserError, match=r"cannot write .*atari-frames"):
            self.play(tmp_path)
        assert os.listdir(tmp_path) == ["atari-frames"]


def test_by_name(tmp_path):
    """As ``--data atari:Pong,Breakout`` asks for it."""
    of = options(labels=("game",), **LEAST)
    split = load_data("atari:Pong,Breakout", tmp_path, seed=6, frames=of)
    assert [task.classes for task in split.train.tasks] == [("Pong", "Breakout")]
    assert len(list(tmp_path.glob("atari-frames/*-*/frames.npy"))) == 2


def test_each_observation_knows_its_game_and_the_game_played(two_games):
    for part, images in zip(("train", "test"), two_games, strict=True):
        games, matches = images.episodes
        assert torch.equal(games, column(images, "game"))
        played = [each[part]["games"] for each in images.about["games"].values()]
        assert matches.unique().tolist() == list(range(sum(played)))
        assert matches[games == 0].unique().tolist() == list(range(played[0]))
        # A game played has one opening, whose stack holds three frames of zeros.
        openings = (images.stacks == 0).sum(dim=1) == 3
        assert matches[openings].unique().numel() == int(openings.sum())


class TestRefusals:
    @pytest.mark.parametrize(
        ("games", "changes", "line"),
        [
            (["Pongg"], {}, r'unknown Atari game "ALE/Pongg-v5".*Did you mean "ALE/Pong-v5"'),
            (["pong"], {}, r'Did you mean "ALE/Pong-v5"'),
            (["Pong", "Pong"], {}, "given twice"),
            ([], {}, "no game is given"),
            (["Asterix"], {}, r'RAM table does not know "Asterix".*"asteroids".*other labels'),
            (["Pong"], {"train_frames": 5}, "--frames.train-frames 5 must be at least 100"),
            (["Pong"], {"test_frames": 0}, "--frames.test-frames 0 must be"),
            (
                ["Pong"],
                {"labels": ("rom",)},
                r'--frames.labels "rom" .*Did you mean "ram"',
            ),
            (["Pong"], {"labels": ()}, "at least one"),
            (["Pong"], {"play": "sticky"}, r'Did you mean "sticky-random"'),
            (["Pong"], {"protocol": "clasic"}, 'Did you mean "classic"'),
            (["Pong"], {"obs": "gray"}, '--frames.obs "gray" is unknown'),
            (["Pong"], {"max_classes": 1}, "--frames.max-classes 1 must be"),
            (["Pong"], {"repeat_probability": 1.0}, "--frames.repeat-probability 1.0 must be"),
            (
                ["Pong"],
                {"frame_stack": 1},
                "--frames.labels action needs observations",
            ),
            (["Pong"], {"labels": ("game",)}, "no label is left to learn"),
            (["Pong"], {"labels": ("reward",), "min_entropy": 0.9}, r"Pong/reward 0\.\d+"),
        ],
    )
    def test_bad_values(self, games, changes, line):
        with pytest.raises(UserError, match=line):
            play_frames(games, options(**{**LEAST, **changes}), seed=0)

    def test_a_game_without_ram_variables_has_other_labels(self):
        split = play_frames(["Asterix"], options(labels=("action",), **LEAST), seed=0)
        assert [task.name for task in split.train.tasks] == ["Asterix/action"]

    def test_games_that_are_all_the_same(self, monkeypatch):
        monkeypatch.setattr("rlcnn.data.atari.collecting._PATIENCE", 4)

        def still(images):
            return np.zeros(len(images), dtype=int)

        with pytest.raises(UserError, match=r"5 games .* only \d different .* 100 .* training"):
            play_frames(
                ["Pong"],
                options(max_episode_steps=8, protocol="sticky", **LEAST),
                seed=0,
                policies={"Pong": PolicyPlay(still, exploration=0.0)},
            )

    def test_a_policy_for_a_game_that_is_not_played(self):
        with pytest.raises(UserError, match=r'a policy is given for "Pongo".*"Pong"'):
            play_frames(["Pong"], options(), seed=0, policies={"Pongo": PolicyPlay(np.asarray)})
