"""A finished run on labelled images, which many tests read or copy."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.picture_files import pictures, write_folder

from rlcnn.supervised.config import AugmentConfig, PretrainConfig
from rlcnn.supervised.pretraining import pretrain


@pytest.fixture(scope="session")
def pretraining_config(tmp_path_factory: pytest.TempPathFactory) -> PretrainConfig:
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


@pytest.fixture(scope="session")
def pretrained(
    pretraining_config: PretrainConfig, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run to its end. Copy it to change it."""
    return pretrain(pretraining_config, tmp_path_factory.mktemp("runs") / "run")
