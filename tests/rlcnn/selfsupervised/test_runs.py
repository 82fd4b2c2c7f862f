"""Runs without labels on real games: what they leave behind, resuming, and what they refuse."""

from __future__ import annotations

import io
import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from support.picture_files import refused
from support.run_files import rows_of, weights_of

from rlcnn.data.atari.options import FrameOptions
from rlcnn.data.augment_options import AugmentConfig
from rlcnn.runs.stopping import TrainingStopped
from rlcnn.selfsupervised.options import parse_objectives
from rlcnn.supervised import setup
from rlcnn.supervised.config import PretrainConfig
from rlcnn.supervised.pretraining import pretrain, resume_pretraining
from rlcnn.supervised.trainer import Trainer
from rlcnn.weights.load import load_encoder, read_about

# Two epochs of seven updates.
CONFIG = PretrainConfig(
    data="atari:Pong",
    objectives=("spr", "1", "inverse", "1", "contrastive", "0.5"),
    jumps=2,
    contrast_steps=1,
    encoder="lenet",
    encoder_options={"features_dim": 16},
    frames=FrameOptions(train_frames=100, test_frames=100, obs_size=32, min_entropy=0.0),
    epochs=2,
    batch_size=16,
    ema=0.5,
    device="cpu",
    precision="fp32",
    num_threads=1,
    keep_checkpoints=2,
    baseline_images=50,
    track="disabled",
)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def run(data_dir: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A finished run and its output."""
    said = io.StringIO()
    config = replace(CONFIG, data_dir=data_dir)
    path = tmp_path_factory.mktemp("runs") / "run"
    return pretrain(config, path, console=Console(file=said, width=400)), said.getvalue()


class _StopAt(Trainer):
    """Presses Ctrl-C during one update."""

    at = 9

    def _update(self, batch: Any) -> None:
        super()._update(batch)
        if self.step + 1 == self.at:
            signal.raise_signal(signal.SIGINT)


def test_a_run_reports_each_objective_a_probe_and_baselines(run: tuple[Path, str]) -> None:
    path, said = run
    rows = rows_of(path)
    assert [(row["step"], row["epoch"]) for row in rows] == [(7, 1), (14, 2)]
    for name in ("spr", "inverse", "inverse/top1", "contrastive", "contrastive/top1", "loss"):
        assert {f"train/{name}", f"test/{name}"} <= set(rows[0])
    summary = json.loads((path / "summary.json").read_text())
    assert set(summary["baselines"]) == {"majority class", "random encoder", "linear on pixels"}
    probe, beside = summary["probe"]["top1"], summary["baselines"]["random encoder"]["top1"]
    assert summary["gains"]["random encoder"]["gain"] == pytest.approx(probe - beside)
    assert summary["test"]["best"] == summary["test"]["last"]
    for message in ("1 spr + 1 inverse + 0.5 contrastive, 98 sequences", "linear probe:"):
        assert message in said
    assert "evaluate_classifier.py" not in said


def test_its_weights_are_the_encoders(run: tuple[Path, str]) -> None:
    path, _ = run
    encoder = load_encoder(path / "best.safetensors")
    assert encoder.observation_shape == (4, 32, 32)
    assert weights_of(path, "best") == weights_of(path, "last")
    assert set(weights_of(path, "best")) == set(encoder.state_dict())
    about = read_about(path / "best.safetensors")
    assert about["objectives"] == list(CONFIG.objectives)


def test_a_stopped_run_goes_on_as_if_it_had_not(
    run: tuple[Path, str], data_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(setup, "Trainer", _StopAt)
        with pytest.raises(TrainingStopped, match="after 9 updates"):
            pretrain(replace(CONFIG, data_dir=data_dir), tmp_path / "run")
    resume_pretraining(tmp_path / "run")
    assert rows_of(tmp_path / "run") == rows_of(run[0])
    assert weights_of(tmp_path / "run") == weights_of(run[0])


def test_a_game_without_a_table_of_its_ram_needs_no_labels(data_dir: str, tmp_path: Path) -> None:
    said = io.StringIO()
    config = replace(
        CONFIG,
        data="atari:Krull",
        data_dir=data_dir,
        objectives=("inverse",),
        frames=replace(CONFIG.frames, labels=("ram",)),
        epochs=1,
    )
    path = pretrain(config, tmp_path / "run", console=Console(file=said, width=400))
    assert "without labels" in said.getvalue()
    assert "no baselines: no held-out image has a label" in said.getvalue()
    assert json.loads((path / "summary.json").read_text())["gains"] is None


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"data": "folder:photos"},
            "needs sequences of frames with the actions between them: expected --data atari:GAME,"
            ' not "folder:photos"',
        ),
        ({"data": "mnist"}, "needs sequences of frames"),
        ({"objectives": ("spr", "-1")}, "--objectives spr -1 must have a weight above 0"),
        ({"objectives": ("spr", "0")}, "--objectives spr 0 must have a weight above 0"),
        ({"objectives": ("spr", "nan")}, "--objectives spr nan must have a weight above 0"),
        ({"objectives": ("spr", "inf")}, "--objectives spr inf must have a weight above 0"),
        ({"objectives": ("1", "spr")}, "must have a name before each weight"),
        ({"objectives": ("spr", "1", "2")}, "must have a name before each weight"),
        ({"objectives": ("spr", "spr")}, "must name spr once"),
        ({"objectives": ()}, "--objectives needs at least one of classify, spr"),
        ({"objectives": ("inverese",)}, 'Did you mean "inverse"?'),
        ({"jumps": 0}, "--jumps 0 must be at least 1"),
        ({"target_decay": 1.5}, "--target-decay 1.5 must be"),
        ({"augment": AugmentConfig(flip=True)}, "--augment is for --objectives classify alone"),
        ({"frames": FrameOptions(labels=("order", "ram"))}, "--frames.labels order shuffles"),
        ({"frames": FrameOptions(random_share=0.5)}, "--frames.random-share is for games"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(changes: dict[str, Any], message: str) -> None:
    with refused(message):
        replace(CONFIG, **changes).validate()


def test_games_shorter_than_the_jumps_are_refused(data_dir: str, tmp_path: Path) -> None:
    frames = replace(CONFIG.frames, max_episode_steps=4)
    config = replace(CONFIG, data_dir=data_dir, objectives=("spr",), jumps=5, frames=frames)
    with refused("have 0 sequences of 6 observations", "--frames.max-episode-steps", "--jumps"):
        pretrain(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_objectives_have_a_weight_of_1_or_their_own() -> None:
    assert parse_objectives(["spr", "inverse", "0.5"]) == {"spr": 1.0, "inverse": 0.5}
    assert parse_objectives(["classify"]) == {"classify": 1.0}
    assert PretrainConfig().weights_by_objective == {"classify": 1.0}
