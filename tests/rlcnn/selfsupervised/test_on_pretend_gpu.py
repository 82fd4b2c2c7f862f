"""Learning from sequences on a pretended GPU: what must lie where."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.frame_sequences import ACTIONS, walks
from support.pretend_gpu import CUDA, PretendGPU

from rlcnn.data.augment import Augmentation
from rlcnn.data.augment_options import AugmentConfig
from rlcnn.data.batches import Batches
from rlcnn.encoders import create_encoder
from rlcnn.selfsupervised.setup import Parts, make_network, sequences_of
from rlcnn.supervised.config import PretrainConfig
from rlcnn.supervised.trainer import Trainer

CONFIG = PretrainConfig(
    data="atari:Pong",
    objectives=("classify", "spr", "inverse", "contrastive"),
    batch_size=16,
    ema=0.9,
    device="cuda",
    precision="fp32",
)


def make_trainer(config: PretrainConfig) -> Trainer:
    frames = walks()
    encoder = create_encoder("lenet", (2, 16, 16), features_dim=8)
    network = make_network(Parts(config, encoder, frames.tasks, len(ACTIONS)))
    singles = Batches(
        frames,
        Augmentation(AugmentConfig(), frames),
        batch_size=16,
        seed=0,
        device=torch.device(config.device),
    )
    sequences = sequences_of(singles, network, config)
    return Trainer(config, network, sequences, sequences)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_it_learns_evaluates_and_resumes(
    precision: str, tmp_path: Path, pretend_gpu: PretendGPU
) -> None:
    config = replace(CONFIG, precision=precision)  # type: ignore[arg-type]
    trainer = make_trainer(config)
    # Four games of 12 observations, each with 7 sequences of 6.
    assert sum(trainer.learn_epoch()) == 28
    trainer.evaluate()
    trainer.save(tmp_path, {})
    restored = make_trainer(config)
    restored.restore(tmp_path)
    assert list(restored.epoch_metrics()) == list(trainer.epoch_metrics())
    assert sum(restored.learn_epoch()) == 28
    assert {p.device for p in restored.network.parameters()} == {CUDA}
