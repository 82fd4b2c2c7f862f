"""Objectives together on one encoder: weights, target, measures, and a world that they solve."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from support.frame_sequences import ACTIONS, single_batches, walks

from rlcnn.data.images import StackedFrames
from rlcnn.encoders import Encoder
from rlcnn.encoders.freezing import frozen_layers
from rlcnn.selfsupervised.network import SelfSupervisedNetwork
from rlcnn.selfsupervised.sequences import SequenceBatches
from rlcnn.selfsupervised.setup import Parts, make_network, sequences_of
from rlcnn.selfsupervised.views import SequenceBatch, follow
from rlcnn.supervised.classifier import load_classifier
from rlcnn.supervised.config import PretrainConfig
from rlcnn.supervised.evaluation.baselines import fit_linear
from rlcnn.supervised.network import Measures
from rlcnn.supervised.trainer import Trainer
from rlcnn.weights.load import load_encoder

MakeBatch = Callable[..., SequenceBatch]


def make_config(objectives: Sequence[str], **options: object) -> PretrainConfig:
    fixed = {"data": "atari:Pong", "device": "cpu", "precision": "fp32", "batch_size": 16}
    return PretrainConfig(objectives=tuple(objectives), **{**fixed, **options})  # type: ignore[arg-type]


def build(
    encoder: Encoder, config: PretrainConfig, frames: StackedFrames | None = None
) -> SelfSupervisedNetwork:
    tasks = [] if frames is None else frames.tasks
    return make_network(Parts(config, encoder, tasks, len(ACTIONS)))


def by_name(network: SelfSupervisedNetwork, measures: Measures) -> dict[str, float]:
    return {
        name: (numerator / denominator).item()
        for name, (numerator, denominator) in zip(network.measured, measures.ratios, strict=True)
    }


def test_the_loss_is_the_weighted_sum(encoder: Encoder, make_batch: MakeBatch) -> None:
    network = build(encoder, make_config(["spr", "2", "inverse", "contrastive", "0.5"], jumps=2))
    assert network.offsets == (0, 1, 2, 3)
    measures = network.measure(make_batch(network.offsets))
    parts = by_name(network, measures)
    assert list(parts) == ["spr", "inverse", "inverse/top1", "contrastive", "contrastive/top1"]
    expected = 2 * parts["spr"] + parts["inverse"] + 0.5 * parts["contrastive"]
    assert measures.loss.item() == pytest.approx(expected)


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_the_target_is_a_moving_average(encoder: Encoder, decay: float) -> None:
    network = build(encoder, make_config(["spr"], target_decay=decay))
    before = [p.clone() for p in network.target.parameters()]
    for _ in range(2):
        with torch.no_grad():
            for parameter in encoder.parameters():
                parameter += torch.randn_like(parameter)
        expected = [
            decay * old + (1 - decay) * new.detach()
            for old, new in zip(before, encoder.parameters(), strict=True)
        ]
        network.after_update()
        before = [p.clone() for p in network.target.parameters()]
        for own, wanted in zip(before, expected, strict=True):
            torch.testing.assert_close(own, wanted)


def test_statistics_follow_and_counters_are_copied() -> None:
    target, norm = torch.nn.BatchNorm2d(2), torch.nn.BatchNorm2d(2)
    norm(10 + torch.randn(4, 2, 3, 3))
    follow(target, norm, 0.5)
    assert norm.running_mean is not None
    torch.testing.assert_close(target.running_mean, 0.5 * norm.running_mean)
    assert int(target.num_batches_tracked) == 1  # type: ignore[arg-type]


def test_the_target_stays_in_evaluation_mode(encoder: Encoder) -> None:
    network = build(encoder, make_config(["spr"])).train()
    assert network.encoder.training
    assert not network.target.training


def learn(encoder: Encoder, config: PretrainConfig, epochs: int) -> tuple[Trainer, StackedFrames]:
    train, test = walks(8, 40), walks(3, 40, seed=1)
    network = build(encoder, config, train)
    batches: list[SequenceBatches] = [
        sequences_of(single_batches(part), network, config) for part in (train, test)
    ]
    trainer = Trainer(config, network, *batches)
    for _ in range(epochs):
        for _ in trainer.learn_epoch():
            pass
    return trainer, train


@pytest.mark.usefixtures("one_thread")
def test_inverse_dynamics_learns_a_tiny_world(encoder: Encoder) -> None:
    config = make_config(["inverse"], epochs=12, learning_rate=3e-3)
    trainer, _ = learn(encoder, config, 12)
    figures = trainer.evaluate()
    # One of three actions by chance.
    assert figures["test/inverse/top1"] > 0.95
    assert trainer.epoch_metrics()["train/inverse/top1"] > 0.5


@pytest.mark.usefixtures("one_thread")
def test_contrast_recognises_what_follows_and_spr_predicts_it(encoder: Encoder) -> None:
    objectives = ["spr", "inverse", "contrastive"]
    config = make_config(objectives, epochs=12, learning_rate=3e-3, jumps=2, contrast_steps=1)
    before, _ = learn(encoder, config, 0)
    start = before.evaluate()
    trainer, train = learn(encoder, config, 12)
    figures = trainer.evaluate()
    assert figures["test/spr"] < start["test/spr"]
    assert figures["test/contrastive"] < start["test/contrastive"]
    assert figures["test/feature_distance"] > 0.05
    # The features say where the square is.
    probe = fit_linear(encoder, single_batches(train), single_batches(walks(seed=2)), seed=0)
    assert probe.figures["test/top1"] > 0.7


def test_equal_features_of_all_observations_show_as_no_distance(encoder: Encoder) -> None:
    config = make_config(["inverse"])
    network = build(encoder, config)
    sequences = sequences_of(single_batches(walks()), network, config)
    with torch.inference_mode():
        assert network.eval().evaluate(sequences)["test/feature_distance"] > 1e-4
        for parameter in encoder.projection.parameters():
            parameter.zero_()
            parameter += 1
        for parameter in encoder.trunk.parameters():
            parameter.zero_()
        assert network.evaluate(sequences)["test/feature_distance"] == pytest.approx(0, abs=1e-9)


def test_labels_can_be_learned_with_sequences(encoder: Encoder, tmp_path: Path) -> None:
    config = make_config(["classify", "1", "inverse", "0.5"], learning_rate=3e-3)
    trainer, train = learn(encoder, config, 6)
    figures = trainer.evaluate()
    assert {"test/classify", "test/top1", "test/inverse"} <= set(figures)
    # One of four places by chance.
    assert figures["test/top1"] > 0.7
    logits = trainer.held_out_logits(single_batches(train))
    assert logits is not None
    assert logits[0].shape == (len(train), 4)
    trainer.network.save(tmp_path / "weights.safetensors", {"run": "x"})
    assert load_classifier(tmp_path / "weights.safetensors").tasks == train.tasks


def test_without_labels_the_encoder_is_saved_alone(encoder: Encoder, tmp_path: Path) -> None:
    network = build(encoder, make_config(["spr"]))
    assert network.held_out_logits(single_batches(walks())) is None
    network.save(tmp_path / "weights.safetensors", {})
    loaded = load_encoder(tmp_path / "weights.safetensors").state_dict()
    assert loaded.keys() == encoder.state_dict().keys()
    assert all(torch.equal(loaded[name], own) for name, own in encoder.state_dict().items())


@pytest.mark.usefixtures("one_thread")
def test_an_encoder_that_is_frozen_in_part_learns_only_the_rest(encoder: Encoder) -> None:
    train = walks()
    config = make_config(["spr", "inverse"], jumps=1, mode="finetune", finetune_factor=0.1)
    network = build(encoder, config, train)
    network.freeze(frozen_layers(encoder, "finetune", "projection.c5"))
    sequences = sequences_of(single_batches(train), network, config)
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    trainer = Trainer(config, network, sequences, sequences)
    next(trainer.learn_epoch())
    changed = {n.split(".")[0] for n, t in encoder.state_dict().items() if not t.equal(before[n])}
    assert changed == {"projection"}
