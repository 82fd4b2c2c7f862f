"""Learning from labelled images on a pretend GPU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.picture_files import split
from support.pretend_gpu import CUDA, PretendGPU

from rlcnn.data.augment import Augmentation
from rlcnn.data.augment_options import AugmentConfig
from rlcnn.data.batches import Batches
from rlcnn.encoders import create_encoder
from rlcnn.supervised.classifier import Classifier
from rlcnn.supervised.config import PretrainConfig
from rlcnn.supervised.trainer import Trainer

pytestmark = pytest.mark.usefixtures("one_thread")

CONFIG = PretrainConfig(
    encoder="lenet",
    encoder_options={"features_dim": 16},
    batch_size=16,
    dropout=0.3,
    ema=0.9,
    augment=AugmentConfig(crop=16, crop_padding=1, cutout=3),
    device="cuda",
    precision="fp32",
)


def make_trainer(config: PretrainConfig) -> Trainer:
    data = split(8)
    augmentation = Augmentation(config.augment, data.train)
    options = {"batch_size": config.batch_size, "seed": 0, "device": torch.device("cuda")}
    train, test = (Batches(part, augmentation, **options) for part in data)
    encoder = create_encoder(config.encoder, augmentation.output_shape, **config.encoder_options)
    classifier = Classifier(
        encoder,
        data.train.tasks,
        dropout=config.dropout,
        label_smoothing=config.label_smoothing,
    )
    return Trainer(config, classifier, train, test)


@pytest.mark.parametrize(
    "options",
    [{}, {"precision": "bf16"}, {"augment": AugmentConfig(scale_from=0.8, flip=True)}],
    ids=["fp32", "bf16", "images one by one"],
)
def test_it_learns_evaluates_and_resumes(
    options: dict[str, object], tmp_path: Path, pretend_gpu: PretendGPU
) -> None:
    config = replace(CONFIG, **options)  # type: ignore[arg-type]
    trainer = make_trainer(config)
    assert sum(trainer.learn_epoch()) == 48
    trainer.evaluate()
    trainer.save(tmp_path, {})
    restored = make_trainer(config)
    restored.restore(tmp_path)
    assert list(restored.epoch_metrics()) == list(trainer.epoch_metrics())
    assert sum(restored.learn_epoch()) == 48
    assert {p.device for p in restored.network.parameters()} == {CUDA}
