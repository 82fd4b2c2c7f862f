"""A run on labelled images: what it leaves behind, and how it goes on."""

from __future__ import annotations

import io
import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from support.picture_files import CLASSES, pictures, refused, write_folder

from rlcnn.data.atari.dataset import PolicyPlay
from rlcnn.data.atari.options import FrameOptions
from rlcnn.data.augment import AugmentConfig
from rlcnn.data.images import Split, StoredImages, Task
from rlcnn.runs import manifest
from rlcnn.runs.directory import RunDirectory
from rlcnn.runs.stopping import TrainingStopped
from rlcnn.supervised import setup
from rlcnn.supervised.classifier import load_classifier
from rlcnn.supervised.config import PretrainConfig
from rlcnn.supervised.evaluation.networks import load_network
from rlcnn.supervised.pretraining import pretrain, resume_pretraining
from rlcnn.supervised.setup import check_players
from rlcnn.supervised.trainer import Trainer
from rlcnn.weights.load import read_about, read_tensors

UPDATES = 5


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> PretrainConfig:
    """Three epochs of five updates, with all that has a state."""
    folder = tmp_path_factory.mktemp("folder [1]")
    write_folder(folder / "train", pictures(8))
    write_folder(folder / "test", pictures(4, seed=1))
    return PretrainConfig(
        data=f"folder:{folder}",
        encoder="lenet",
        encoder_options={"features_dim": 16},
        epochs=3,
        batch_size=10,
        optimizer="sgd",
        learning_rate=0.05,
        schedule="cosine",
        dropout=0.2,
        ema=0.5,
        augment=AugmentConfig(flip=True),
        device="cpu",
        precision="fp32",
        num_threads=1,
        keep_checkpoints=2,
        track="disabled",
    )


@pytest.fixture(scope="module")
def finished(config: PretrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run to its end. Copy it to change it."""
    return pretrain(config, tmp_path_factory.mktemp("runs") / "run")


def rows(run: Path) -> list[dict[str, Any]]:
    """Metrics without the clock's."""
    return [
        {key: value for key, value in row.items() if not key.startswith("time/")}
        for row in RunDirectory.open(run).metrics()
    ]


def weights(run: Path, name: str = "last") -> dict[str, bytes]:
    tensors = read_tensors(run / f"{name}.safetensors").tensors
    return {key: tensor.numpy().tobytes() for key, tensor in tensors.items()}


def steps(run: Path) -> list[int]:
    return [int(path.name) for path in RunDirectory.open(run).checkpoints()]


def test_a_run_leaves_behind_all_that_was_promised(finished: Path, config: PretrainConfig) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    logged = rows(finished)
    assert [(row["step"], row["epoch"]) for row in logged] == [(5, 1), (10, 2), (15, 3)]
    assert {"train/loss", "train/top1", "test/loss", "test/top1", "test/top5"} <= set(logged[0])
    assert (summary["epochs"], summary["steps"]) == (3, 15)
    assert summary["test"]["last"]["top1"] == logged[-1]["test/top1"]
    best = max(logged, key=lambda row: row["test/top1"])
    assert summary["test"]["best"]["top1"] == best["test/top1"]
    assert summary["test"]["best"]["epoch"] == best["epoch"]
    assert summary["baselines"] is None
    assert steps(finished) == [10, 15]
    document = json.loads((finished / "config.json").read_text())
    assert PretrainConfig.from_json(document["pretraining"]) == config.resolve()
    assert {"command", "provenance", "data"} <= set(document)
    assert list((finished / "tb").iterdir())


def test_the_weights_say_where_they_come_from(finished: Path, config: PretrainConfig) -> None:
    about = read_about(finished / "last.safetensors")
    logged = rows(finished)[-1]
    assert about["accuracy"]["top1"] == logged["test/top1"]
    assert about["accuracy"]["top5"] == logged["test/top5"]
    assert about["data"] == config.data
    assert about["recipe"] == config.recipe
    assert (about["epoch"], about["step"], about["run"]) == (3, 15, str(finished))
    assert read_about(finished / "best.safetensors")["accuracy"]["top1"] == max(
        row["test/top1"] for row in rows(finished)
    )


def test_a_file_of_weights_is_judged_away_from_its_run_as_in_it(
    finished: Path, config: PretrainConfig, tmp_path: Path
) -> None:
    alone = Path(shutil.copy(finished / "best.safetensors", tmp_path))
    inside, outside = (load_network(str(path)).training for path in (finished, alone))
    for name in ("data", "seed", "colours", "augment", "frames"):
        assert outside[name] == inside[name]
    assert outside["augment"]["flip"] is True


def test_the_weights_are_what_was_judged(finished: Path) -> None:
    classifier = load_classifier(finished / "last.safetensors").eval()
    assert classifier.tasks[0].classes == tuple(sorted(CLASSES))
    images = pictures(4, seed=1)
    names = classifier.tasks[0].classes
    with torch.inference_mode():
        predicted = classifier(images.images)[0].argmax(dim=1).tolist()
    right = [
        names[mine] == CLASSES[label]
        for mine, label in zip(predicted, images.labels[:, 0].tolist(), strict=True)
    ]
    assert sum(right) / len(right) == pytest.approx(rows(finished)[-1]["test/top1"])


class _StopAt(Trainer):
    """Presses Ctrl-C during one update."""

    at = 0

    def _update(self, batch: Any) -> None:
        super()._update(batch)
        if self.step + 1 == self.at:
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("at", [2, UPDATES, 8, 3 * UPDATES])
def test_a_stopped_run_goes_on_as_if_it_had_not(
    at: int,
    config: PretrainConfig,
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(_StopAt, "at", at)
        patch.setattr(setup, "Trainer", _StopAt)
        with pytest.raises(TrainingStopped, match=f"after {at} updates; go on with --resume"):
            pretrain(config, run)
    assert steps(run)[-1] == at
    assert not (run / "summary.json").exists()
    # It stopped before that epoch was judged.
    assert "top1" not in read_about(run / "last.safetensors")["accuracy"]
    resume_pretraining(run)
    assert rows(run) == rows(finished)
    for name in ("best", "last"):
        assert weights(run, name) == weights(finished, name)
    summaries = [json.loads((path / "summary.json").read_text()) for path in (run, finished)]
    assert summaries[0]["test"] == summaries[1]["test"]
    assert RunDirectory.open(run).attempts == 2


class _StopWhileJudging(Trainer):
    """Presses Ctrl-C while the second epoch is judged."""

    def evaluate(self) -> dict[str, float]:
        if self.epoch == 2:
            signal.raise_signal(signal.SIGINT)
        return super().evaluate()


def test_a_stop_while_it_is_judged_loses_nothing(
    config: PretrainConfig, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(setup, "Trainer", _StopWhileJudging)
        with pytest.raises(TrainingStopped, match="after 10 updates"):
            pretrain(replace(config, checkpoint_every=0), run)
    assert rows(run) == rows(finished)[:2]
    assert steps(run) == [10]
    resume_pretraining(run)
    assert rows(run) == rows(finished)
    assert weights(run, "best") == weights(finished, "best")


def test_a_run_may_end_where_it_stopped(config: PretrainConfig, tmp_path: Path) -> None:
    run = pretrain(replace(config, epochs=2), tmp_path / "run")
    # As one of more epochs that was stopped here, before any was judged.
    (run / "summary.json").unlink()
    document = json.loads((run / "config.json").read_text())
    document["pretraining"] |= {"epochs": 9, "eval_every": 9}
    (run / "config.json").write_text(json.dumps(document))
    checkpoint = run / "checkpoints" / f"{10:012d}"
    state = json.loads((checkpoint / "state.json").read_text())
    judged = state["extra"]["last"]
    state["extra"] |= {"best": None, "last": None}
    (checkpoint / "state.json").write_text(json.dumps(state))
    for name in ("best.safetensors", manifest.NAME):
        (checkpoint / name).unlink()
    manifest.seal(checkpoint)
    resume_pretraining(run, {"epochs": 2})
    summary = json.loads((run / "summary.json").read_text())
    assert summary["test"]["last"]["top1"] == judged["test/top1"]
    assert read_about(run / "best.safetensors")["epoch"] == 2


def test_updates_beyond_the_checkpoint_are_done_again_with_the_best_of_its_time(
    finished: Path, tmp_path: Path
) -> None:
    # Killed after two epochs and some of the third, whose row and best weights were written.
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    (run / "summary.json").unlink()
    shutil.rmtree(run / "checkpoints" / f"{15:012d}")
    (run / "best.safetensors").write_bytes((run / "last.safetensors").read_bytes())
    resume_pretraining(run)
    assert rows(run) == rows(finished)
    assert weights(run) == weights(finished)
    assert weights(run, "best") == weights(finished, "best")


def test_a_run_killed_before_its_first_checkpoint_begins_again(
    finished: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    (run / "summary.json").unlink()
    shutil.rmtree(run / "checkpoints")
    resume_pretraining(run)
    assert rows(run) == rows(finished)
    assert weights(run) == weights(finished)


def test_a_run_is_extended(finished: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    with refused("is done: it took its 3 epochs", "--epochs 6"):
        resume_pretraining(run)
    resume_pretraining(run, {"epochs": 4})
    assert [row["epoch"] for row in rows(run)] == [1, 2, 3, 4]
    assert json.loads((run / "summary.json").read_text())["epochs"] == 4


@pytest.mark.parametrize("batch_size", [10, 256])
def test_images_that_do_not_fill_a_minibatch_cost_a_line_before_the_first_update(
    config: PretrainConfig, tmp_path: Path, batch_size: int
) -> None:
    said = io.StringIO()
    short = replace(config, epochs=1, batch_size=batch_size, baselines="off")
    pretrain(short, tmp_path / "run", console=Console(file=said, width=400))
    before = said.getvalue().partition("epoch 1/1")[0]
    assert ("do not fill --batch-size 256" in before) == (batch_size == 256)


def test_what_cannot_change_within_a_run_is_refused(finished: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with refused("--learning-rate cannot change on a resume", "0.05", "--config"):
        resume_pretraining(run, {"learning_rate": 0.1})
    with refused("--augment.flip cannot change"):
        resume_pretraining(run, {"augment": AugmentConfig()})
    with refused("--epochs 2 lies behind the run"):
        (run / "summary.json").rename(tmp_path / "summary.json")
        resume_pretraining(run, {"epochs": 2})
    (tmp_path / "summary.json").rename(run / "summary.json")
    after = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert after == before


def test_other_images_are_no_way_to_go_on(
    config: PretrainConfig, finished: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    folder = Path(config.data.removeprefix("folder:"))
    moved = tmp_path / "0000.png"
    image = next((folder / "train" / "dark").iterdir())
    shutil.move(image, moved)
    try:
        with refused("are not those that run", "48 to train", "47 to train"):
            resume_pretraining(run, {"epochs": 6})
    finally:
        shutil.move(moved, image)


def test_a_run_starts_from_weights(config: PretrainConfig, finished: Path, tmp_path: Path) -> None:
    started = replace(config, weights=str(finished), learning_rate=0.0, epochs=1, ema=0.0)
    run = pretrain(started, tmp_path / "run")
    mine, theirs = weights(run), weights(finished, "best")
    encoder = [name for name in mine if not name.startswith("head.")]
    assert encoder
    assert all(mine[name] == theirs[name] for name in encoder)
    report = json.loads((run / "weights.json").read_text())
    assert sorted(report["loaded"]) == sorted(encoder)


def test_the_last_epochs_gain_over_each_baseline_is_told(
    config: PretrainConfig, tmp_path: Path
) -> None:
    run = pretrain(replace(config, epochs=2, baselines="on"), tmp_path / "run")
    summary = json.loads((run / "summary.json").read_text())
    beside = summary["baselines"]
    assert set(beside) == {"majority class", "random encoder", "linear on pixels"}
    assert beside["majority class"]["top1"] == pytest.approx(1 / 6)
    assert all(0 <= figures["top1"] <= 1 for figures in beside.values())
    assert set(summary["gains"]) == set(beside)
    for name, told in summary["gains"].items():
        own, other = summary["test"]["last"]["top1"], beside[name]["top1"]
        assert told["gain"] == pytest.approx(own - other)
        lower, upper = told["interval"]
        assert lower < told["gain"] < upper


def test_a_directory_in_use_is_refused_before_anything_is_written(
    config: PretrainConfig, finished: Path
) -> None:
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    with refused(str(finished), "not empty"):
        pretrain(config, finished)
    assert {p: p.read_bytes() for p in finished.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"weights": "none.safetensors"}, "does not exist"),
        ({"encoder": "zfnet", "encoder_options": {}}, "Give --frames.obs-size 47."),
    ],
)
def test_what_a_run_cannot_begin_with_is_refused_before_games_are_played(
    config: PretrainConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    said: str,
) -> None:
    def play(*_: Any) -> None:
        raise AssertionError("games were played")

    monkeypatch.setattr("rlcnn.supervised.pretraining.load_images", play)
    frames = FrameOptions(obs_size=44)
    playing = replace(config, data="atari:Pong", frames=frames, augment=AugmentConfig(), **changes)
    with refused(said):
        pretrain(playing, tmp_path / "run")
    with refused("not empty"):
        pretrain(replace(playing, weights="none"), Path(config.data.removeprefix("folder:")))
    assert not (tmp_path / "run").exists()


def test_another_player_is_refused_before_games_are_played() -> None:
    data = {"games": {"policies": {"Pong": "abc"}}}
    play = PolicyPlay(lambda images: images, name="abc")
    check_players(data, {"Pong": play}, "run")
    with refused("the agent that plays Pong is not as it was when run runs/one began"):
        check_players(data, {"Pong": replace(play, name="abd")}, "runs/one")


def test_an_encoder_learns_from_the_frames_of_a_game(
    config: PretrainConfig, tmp_path: Path
) -> None:
    frames = FrameOptions(
        train_frames=100,
        test_frames=100,
        labels=("action", "reward"),
        obs_size=44,
        min_entropy=0.01,
    )
    playing = replace(
        config,
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
    for told in summary["gains"].values():
        assert set(told["tasks"]) == {"Pong/action", "Pong/reward"}
        each = [one["gain"] for one in told["tasks"].values()]
        assert told["gain"] == pytest.approx(sum(each) / 2)
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
    config = replace(
        PretrainConfig(device="cpu"),
        data="atari:pong",
        encoder="squeezenet1_1:features.4",
        frames=frames,
    )
    images = StoredImages(
        torch.zeros(2, 3, 40, 40).byte(), torch.arange(2), [Task("class", ("a", "b"))]
    )
    split = Split(images, images)
    encoder = setup.PretrainingSetup(config, split).make_encoder(0)
    assert encoder.spec()["options"]["frame_channels"] == 1
