"""A run on labelled images: what it leaves behind, and what it refuses."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from support.picture_files import CLASSES, pictures, refused
from support.run_files import checkpoint_steps, rows_of, weights_of

from envs.errors import UserError
from rlcnn.data.atari.options import FrameOptions, LoadPolicies, PolicyPlay
from rlcnn.data.augment_options import AugmentConfig
from rlcnn.data.folders import load_folder
from rlcnn.data.images import ImageFiles, Split, StoredImages, Task
from rlcnn.runs.directory import RunDirectory
from rlcnn.supervised import setup
from rlcnn.supervised.classifier import load_classifier
from rlcnn.supervised.config import PretrainConfig
from rlcnn.supervised.evaluation.networks import load_network
from rlcnn.supervised.evaluation.probe import choose_images
from rlcnn.supervised.pretraining import pretrain, resume_pretraining
from rlcnn.supervised.setup import load_images
from rlcnn.weights.load import read_about


def test_a_run_leaves_behind_all_that_was_promised(
    pretrained: Path, pretraining_config: PretrainConfig
) -> None:
    summary = json.loads((pretrained / "summary.json").read_text())
    logged = rows_of(pretrained)
    assert [(row["step"], row["epoch"]) for row in logged] == [(5, 1), (10, 2), (15, 3)]
    assert {"train/loss", "train/top1", "test/loss", "test/top1", "test/top5"} <= set(logged[0])
    assert (summary["epochs"], summary["steps"]) == (3, 15)
    assert summary["test"]["last"]["top1"] == logged[-1]["test/top1"]
    best = max(logged, key=lambda row: row["test/top1"])
    assert summary["test"]["best"]["top1"] == best["test/top1"]
    assert summary["test"]["best"]["epoch"] == best["epoch"]
    assert summary["baselines"] is None
    assert checkpoint_steps(pretrained) == [10, 15]
    document = json.loads((pretrained / "config.json").read_text())
    assert PretrainConfig.from_json(document["pretraining"]) == pretraining_config.resolve()
    assert {"command", "provenance", "data"} <= set(document)
    assert list((pretrained / "tb").iterdir())


def test_the_weights_say_where_they_come_from(
    pretrained: Path, pretraining_config: PretrainConfig
) -> None:
    about = read_about(pretrained / "last.safetensors")
    logged = rows_of(pretrained)[-1]
    assert about["accuracy"]["top1"] == logged["test/top1"]
    assert about["accuracy"]["top5"] == logged["test/top5"]
    assert about["data"] == pretraining_config.data
    assert about["recipe"] == pretraining_config.recipe
    assert (about["epoch"], about["step"], about["run"]) == (3, 15, str(pretrained))
    assert read_about(pretrained / "best.safetensors")["accuracy"]["top1"] == max(
        row["test/top1"] for row in rows_of(pretrained)
    )


def test_a_weights_file_is_evaluated_without_its_run_as_with_it(
    pretrained: Path, pretraining_config: PretrainConfig, tmp_path: Path
) -> None:
    alone = Path(shutil.copy(pretrained / "best.safetensors", tmp_path))
    inside, outside = (load_network(str(path)).training for path in (pretrained, alone))
    for name in ("data", "seed", "colours", "augment", "frames"):
        assert outside[name] == inside[name]
    assert outside["augment"]["flip"] is True


def test_the_weights_are_those_that_were_evaluated(pretrained: Path) -> None:
    classifier = load_classifier(pretrained / "last.safetensors").eval()
    assert classifier.tasks[0].classes == tuple(sorted(CLASSES))
    images = pictures(4, seed=1)
    names = classifier.tasks[0].classes
    with torch.inference_mode():
        predicted = classifier(images.images)[0].argmax(dim=1).tolist()
    right = [
        names[mine] == CLASSES[label]
        for mine, label in zip(predicted, images.labels[:, 0].tolist(), strict=True)
    ]
    assert sum(right) / len(right) == pytest.approx(rows_of(pretrained)[-1]["test/top1"])


@pytest.mark.parametrize("batch_size", [10, 256])
def test_images_that_do_not_fill_a_minibatch_cost_a_line_before_the_first_update(
    pretraining_config: PretrainConfig, tmp_path: Path, batch_size: int
) -> None:
    said = io.StringIO()
    short = replace(pretraining_config, epochs=1, batch_size=batch_size, baselines="off")
    pretrain(short, tmp_path / "run", console=Console(file=said, width=400))
    before = said.getvalue().partition("epoch 1/1")[0]
    assert ("do not fill --batch-size 256" in before) == (batch_size == 256)


def test_a_run_starts_from_weights(
    pretraining_config: PretrainConfig, pretrained: Path, tmp_path: Path
) -> None:
    started = replace(
        pretraining_config, weights=str(pretrained), learning_rate=0.0, epochs=1, ema=0.0
    )
    run = pretrain(started, tmp_path / "run")
    mine, theirs = weights_of(run), weights_of(pretrained, "best")
    encoder = [name for name in mine if not name.startswith("head.")]
    assert encoder
    assert all(mine[name] == theirs[name] for name in encoder)
    report = json.loads((run / "weights.json").read_text())
    assert sorted(report["loaded"]) == sorted(encoder)


def test_the_summary_has_the_last_epochs_gain_over_each_baseline(
    pretraining_config: PretrainConfig, tmp_path: Path
) -> None:
    run = pretrain(replace(pretraining_config, epochs=2, baselines="on"), tmp_path / "run")
    summary = json.loads((run / "summary.json").read_text())
    beside = summary["baselines"]
    assert set(beside) == {"majority class", "random encoder", "linear on pixels"}
    assert beside["majority class"]["top1"] == pytest.approx(1 / 6)
    assert all(0 <= figures["top1"] <= 1 for figures in beside.values())
    assert set(summary["gains"]) == set(beside)
    for name, gain in summary["gains"].items():
        own, other = summary["test"]["last"]["top1"], beside[name]["top1"]
        assert gain["gain"] == pytest.approx(own - other)
        lower, upper = gain["interval"]
        assert lower < gain["gain"] < upper


def test_a_directory_in_use_is_refused_before_anything_is_written(
    pretraining_config: PretrainConfig, pretrained: Path
) -> None:
    before = {path: path.read_bytes() for path in pretrained.rglob("*") if path.is_file()}
    with refused(str(pretrained), "not empty"):
        pretrain(pretraining_config, pretrained)
    assert {p: p.read_bytes() for p in pretrained.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"weights": "none.safetensors"}, "does not exist"),
        ({"encoder": "zfnet", "encoder_options": {}}, "Give --frames.obs-size 47."),
    ],
)
def test_what_a_run_cannot_begin_with_is_refused_before_games_are_played(
    pretraining_config: PretrainConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    said: str,
) -> None:
    def play(*_: Any) -> None:
        raise AssertionError("games were played")

    monkeypatch.setattr("rlcnn.supervised.pretraining.load_images", play)
    frames = FrameOptions(obs_size=44)
    playing = replace(
        pretraining_config, data="atari:Pong", frames=frames, augment=AugmentConfig(), **changes
    )
    with refused(said):
        pretrain(playing, tmp_path / "run")
    with refused("not empty"):
        pretrain(
            replace(playing, weights="none"), Path(pretraining_config.data.removeprefix("folder:"))
        )
    assert not (tmp_path / "run").exists()


def test_another_player_is_refused_before_games_are_played(
    pretraining_config: PretrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    class PlayedError(Exception):
        """Games were played."""

    def play(*_: Any, **__: Any) -> None:
        raise PlayedError

    def policies(name: str) -> LoadPolicies:
        return lambda *_: {"Pong": PolicyPlay(lambda images: images, name=name)}

    monkeypatch.setattr("rlcnn.supervised.setup.load_data", play)
    config = replace(pretraining_config, data="atari:Pong", players=("runs/pong",))
    before = {"games": {"policies": {"Pong": "abc"}}}
    with pytest.raises(PlayedError):
        load_images(config, print, policies("abc"), before)
    with refused("the agent that plays Pong has changed since this run began"):
        load_images(config, print, policies("abd"), before)
    with refused("--players need load_policies"):
        load_images(config, print)


def test_a_run_is_named_before_its_players_are_loaded(
    pretraining_config: PretrainConfig, tmp_path: Path
) -> None:
    said = io.StringIO()

    def load(runs: tuple[str, ...], *_: Any) -> Any:
        assert said.getvalue() == f"run:         {tmp_path / 'run'}\n"
        raise UserError(f"{runs[0]} is missing")

    config = replace(pretraining_config, data="atari:Pong", players=("runs/pong",))
    config = replace(config, frames=FrameOptions(obs_size=44), augment=AugmentConfig())
    with refused("runs/pong is missing"):
        console = Console(file=said, width=400)
        pretrain(config, tmp_path / "run", load_policies=load, console=console)
    assert not (tmp_path / "run").exists()


def test_an_encoder_learns_from_the_frames_of_a_game(
    pretraining_config: PretrainConfig, tmp_path: Path
) -> None:
    frames = FrameOptions(
        train_frames=100,
        test_frames=100,
        labels=("action", "reward"),
        obs_size=44,
        min_entropy=0.01,
    )
    playing = replace(
        pretraining_config,
        data="atari:Pong",
        data_dir=str(tmp_path / "data"),
        epochs=1,
        batch_size=50,
        frames=frames,
        augment=AugmentConfig(),
        baselines="auto",
    )
    run = pretrain(playing, tmp_path / "run")
    summary = json.loads((run / "summary.json").read_text())
    assert 0 <= summary["test"]["last"]["top1/Pong/action"] <= 1
    assert set(summary["baselines"]) == {"majority class", "random encoder", "linear on pixels"}
    for gain in summary["gains"].values():
        assert set(gain["tasks"]) == {"Pong/action", "Pong/reward"}
        each = [one["gain"] for one in gain["tasks"].values()]
        assert gain["gain"] == pytest.approx(sum(each) / 2)
    assert load_classifier(run / "best.safetensors").encoder.observation_shape == (4, 44, 44)
    # What was played is kept, and known again.
    resume_pretraining(run, {"epochs": 2})
    assert RunDirectory.open(run).config["data"]["games"]["options"]["train_frames"] == 100


def test_a_list_of_other_things_in_a_configuration_is_refused() -> None:
    with refused("option milestones", "must be a list of float, not with 'half'"):
        PretrainConfig.from_json({"milestones": ["half"]})
    with refused("option players", "must be a list of str, not with 3"):
        PretrainConfig.from_json({"players": [3]})
    assert PretrainConfig.from_json({"milestones": [0, 0.5]}).milestones == (0, 0.5)


def test_three_grey_frames_are_not_one_in_colour() -> None:
    frames = FrameOptions(obs="grey", frame_stack=3, obs_size=40)
    pretraining_config = replace(
        PretrainConfig(device="cpu"),
        data="atari:pong",
        encoder="squeezenet1_1:features.4",
        frames=frames,
    )
    images = StoredImages(
        torch.zeros(2, 3, 40, 40).byte(), torch.arange(2), [Task("class", ("a", "b"))]
    )
    split = Split(images, images)
    encoder = setup.PretrainingSetup(pretraining_config, split).make_encoder(0)
    assert encoder.spec()["options"]["frame_channels"] == 1


def test_a_run_learns_from_some_images_drawn_as_for_a_probe(
    pretraining_config: PretrainConfig,
) -> None:
    # Images in memory, and files of several sizes, which are decoded at each use.
    config = replace(pretraining_config, train_size=24, seed=3)
    directory = Path(config.data.removeprefix("folder:"))
    whole = load_folder(directory, seed=3)
    drawn = load_images(config, lambda line: None)
    expected = choose_images(whole, whole.train.tasks[0], train_size=24, seed=3)
    rows = expected.train.indices
    assert len(rows) == 24
    assert torch.equal(drawn.train.gather(torch.arange(24)), whole.train.gather(rows))
    assert torch.equal(drawn.train.labels, whole.train.labels[rows])
    assert len(drawn.test) == len(whole.test)
    paths = [Path(f"{number}.png") for number in range(len(whole.train))]
    files = ImageFiles(paths, whole.train.labels, whole.train.tasks, channels=1, resize=5)
    some = files.subset(rows)
    assert some.paths == [paths[row] for row in rows.tolist()]
    assert (some.channels, some.resize) == (1, 5)
    with refused("--train-size 49 must be at least 1 and at most 48"):
        load_images(replace(config, train_size=49), lambda line: None)
    with refused("--train-size 5 is for images", "--frames.train-frames"):
        PretrainConfig(data="atari:Pong", train_size=5).validate()
