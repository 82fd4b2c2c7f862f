"""Runs on labelled images that are stopped, resumed and extended."""

from __future__ import annotations

import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.picture_files import refused
from support.run_files import checkpoint_steps, rows_of, weights_of

from rlcnn.runs import manifest
from rlcnn.runs.directory import RunDirectory
from rlcnn.runs.stopping import TrainingStopped
from rlcnn.supervised import setup
from rlcnn.supervised.config import AugmentConfig, PretrainConfig
from rlcnn.supervised.pretraining import pretrain, resume_pretraining
from rlcnn.supervised.trainer import Trainer
from rlcnn.weights.load import read_about

UPDATES = 5


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
    pretraining_config: PretrainConfig,
    pretrained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(_StopAt, "at", at)
        patch.setattr(setup, "Trainer", _StopAt)
        with pytest.raises(TrainingStopped, match=f"after {at} updates; go on with --resume"):
            pretrain(pretraining_config, run)
    assert checkpoint_steps(run)[-1] == at
    assert not (run / "summary.json").exists()
    # It stopped before that epoch was evaluated.
    assert "top1" not in read_about(run / "last.safetensors")["accuracy"]
    resume_pretraining(run)
    assert rows_of(run) == rows_of(pretrained)
    for name in ("best", "last"):
        assert weights_of(run, name) == weights_of(pretrained, name)
    summaries = [json.loads((path / "summary.json").read_text()) for path in (run, pretrained)]
    assert summaries[0]["test"] == summaries[1]["test"]
    assert RunDirectory.open(run).attempts == 2


class _StopInEvaluation(Trainer):
    """Presses Ctrl-C while the second epoch is evaluated."""

    def evaluate(self) -> dict[str, float]:
        if self.epoch == 2:
            signal.raise_signal(signal.SIGINT)
        return super().evaluate()


def test_a_stop_during_an_evaluation_loses_nothing(
    pretraining_config: PretrainConfig,
    pretrained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(setup, "Trainer", _StopInEvaluation)
        with pytest.raises(TrainingStopped, match="after 10 updates"):
            pretrain(replace(pretraining_config, checkpoint_every=0), run)
    assert rows_of(run) == rows_of(pretrained)[:2]
    assert checkpoint_steps(run) == [10]
    resume_pretraining(run)
    assert rows_of(run) == rows_of(pretrained)
    assert weights_of(run, "best") == weights_of(pretrained, "best")


def test_a_run_may_end_where_it_stopped(pretraining_config: PretrainConfig, tmp_path: Path) -> None:
    run = pretrain(replace(pretraining_config, epochs=2), tmp_path / "run")
    # As one of more epochs that was stopped here, before any was evaluated.
    (run / "summary.json").unlink()
    document = json.loads((run / "config.json").read_text())
    document["pretraining"] |= {"epochs": 9, "eval_every": 9}
    (run / "config.json").write_text(json.dumps(document))
    checkpoint = run / "checkpoints" / f"{10:012d}"
    state = json.loads((checkpoint / "state.json").read_text())
    evaluated = state["extra"]["last"]
    state["extra"] |= {"best": None, "last": None}
    (checkpoint / "state.json").write_text(json.dumps(state))
    for name in ("best.safetensors", manifest.NAME):
        (checkpoint / name).unlink()
    manifest.seal(checkpoint)
    resume_pretraining(run, {"epochs": 2})
    summary = json.loads((run / "summary.json").read_text())
    assert summary["test"]["last"]["top1"] == evaluated["test/top1"]
    assert read_about(run / "best.safetensors")["epoch"] == 2


def test_updates_beyond_the_checkpoint_are_done_again_with_the_best_of_its_time(
    pretrained: Path, tmp_path: Path
) -> None:
    # Killed after two epochs and some of the third, whose row and best weights were written.
    run = Path(shutil.copytree(pretrained, tmp_path / "run"))
    (run / "summary.json").unlink()
    shutil.rmtree(run / "checkpoints" / f"{15:012d}")
    (run / "best.safetensors").write_bytes((run / "last.safetensors").read_bytes())
    resume_pretraining(run)
    assert rows_of(run) == rows_of(pretrained)
    assert weights_of(run) == weights_of(pretrained)
    assert weights_of(run, "best") == weights_of(pretrained, "best")


def test_a_run_killed_before_its_first_checkpoint_begins_again(
    pretrained: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(pretrained, tmp_path / "run"))
    (run / "summary.json").unlink()
    shutil.rmtree(run / "checkpoints")
    resume_pretraining(run)
    assert rows_of(run) == rows_of(pretrained)
    assert weights_of(run) == weights_of(pretrained)


def test_a_run_is_extended(pretrained: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(pretrained, tmp_path / "run"))
    with refused("is done: it took its 3 epochs", "--epochs 6"):
        resume_pretraining(run)
    resume_pretraining(run, {"epochs": 4})
    assert [row["epoch"] for row in rows_of(run)] == [1, 2, 3, 4]
    assert json.loads((run / "summary.json").read_text())["epochs"] == 4


def test_what_cannot_change_within_a_run_is_refused(pretrained: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(pretrained, tmp_path / "run"))
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with refused("--learning-rate cannot change on a resume", "0.05", "--config"):
        resume_pretraining(run, {"learning_rate": 0.1})
    with refused("--augment.flip cannot change"):
        resume_pretraining(run, {"augment": AugmentConfig()})
    with refused("--epochs 2 is too few: the run is in epoch"):
        (run / "summary.json").rename(tmp_path / "summary.json")
        resume_pretraining(run, {"epochs": 2})
    (tmp_path / "summary.json").rename(run / "summary.json")
    after = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert after == before


def test_other_images_are_no_way_to_go_on(
    pretraining_config: PretrainConfig, pretrained: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(pretrained, tmp_path / "run"))
    folder = Path(pretraining_config.data.removeprefix("folder:"))
    moved = tmp_path / "0000.png"
    image = next((folder / "train" / "dark").iterdir())
    shutil.move(image, moved)
    try:
        with refused("are not those that run", "48 to train", "47 to train"):
            resume_pretraining(run, {"epochs": 6})
    finally:
        shutil.move(moved, image)
