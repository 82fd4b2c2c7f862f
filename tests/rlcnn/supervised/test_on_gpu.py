"""Supervised training, evaluation and probing on a GPU, beside the same on the CPU.

Both compute in float32. A sum of a few thousand products in another order differs by some 1e-6 of
its terms, so losses and gradients are compared to 1e-4 of their size: a wrong image, label, mask or
constant changes them by far more, and TF32, whose products are off by up to 1e-3, would show.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from support.picture_files import pictures, split, write_folder
from torch import nn

from rlcnn.accelerate.transfers import Prefetcher, read_late
from rlcnn.data.augment import Augmentation, bring_to_size
from rlcnn.data.augment_options import AugmentConfig
from rlcnn.data.batches import Batches
from rlcnn.data.images import UNKNOWN, ImageFiles, Split, StackedFrames, Task
from rlcnn.encoders import create_encoder
from rlcnn.supervised.classifier import Classifier, save_classifier
from rlcnn.supervised.config import PretrainConfig
from rlcnn.supervised.evaluation.assessment import assess
from rlcnn.supervised.evaluation.baselines import fit_baselines
from rlcnn.supervised.evaluation.networks import load_network
from rlcnn.supervised.evaluation.probe import encode
from rlcnn.supervised.trainer import Trainer

pytestmark = pytest.mark.gpu

CONFIG = PretrainConfig(
    # With BatchNorm; without dropout, whose draws differ between devices.
    encoder="cifar_resnet",
    encoder_options={"depth": 8},
    epochs=2,
    batch_size=16,
    optimizer="sgd",
    learning_rate=0.05,
    schedule="constant",
    label_smoothing=0.1,
    ema=0.9,
    augment=AugmentConfig(crop=16, crop_padding=2, edge="reflect", flip=True, cutout=4),
    device="cuda",
    precision="fp32",
)


class _One(NamedTuple):
    values: torch.Tensor


CLOSE: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(autouse=True)
def same_kernels() -> Iterator[None]:
    """The same cuDNN kernels every time, as a comparison to the bit needs them."""
    before = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = True
    yield
    torch.backends.cudnn.deterministic = before


def make_trainer(config: PretrainConfig, data: Split | None = None) -> Trainer:
    data = data or split(8)
    torch.manual_seed(config.seed)
    augmentation = Augmentation(config.augment, data.train)
    device = torch.device(config.device)
    train, test = (
        Batches(part, augmentation, batch_size=config.batch_size, seed=config.seed, device=device)
        for part in data
    )
    encoder = create_encoder(config.encoder, augmentation.output_shape, **config.encoder_options)
    classifier = Classifier(
        encoder,
        data.train.tasks,
        dropout=config.dropout,
        label_smoothing=config.label_smoothing,
    )
    return Trainer(config, classifier, train, test)


def games() -> Split:
    """Stacks of frames stored once, of two tasks of which not all is known."""
    random = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (80, 1, 16, 16), generator=random, dtype=torch.uint8)
    tasks = [Task("a", ("x", "y", "z")), Task("b", ("p", "q"))]
    parts = []
    for first, count in ((0, 48), (40, 24)):
        stacks = torch.randint(first, first + 40, (count, 4), generator=random)
        kinds = [
            torch.randint(UNKNOWN, len(task.classes), (count,), generator=random) for task in tasks
        ]
        parts.append(StackedFrames(frames, stacks, torch.stack(kinds, 1), tasks, {}))
    return Split(*parts)


def files(directory: Path) -> Split:
    parts = []
    for name, per_class in (("train", 4), ("test", 2)):
        images = pictures(per_class)
        write_folder(directory / name, images)
        paths = sorted((directory / name).rglob("*.png"))
        labels = torch.arange(6).repeat_interleave(per_class)
        images_of_files = ImageFiles(paths, labels, images.tasks)
        parts.append(bring_to_size(images_of_files, AugmentConfig(crop=16)))
    return Split(*parts)


def gradients(module: nn.Module) -> dict[str, torch.Tensor]:
    return {
        name: parameter.grad.cpu()
        for name, parameter in module.named_parameters()
        if parameter.grad is not None
    }


@pytest.mark.parametrize("kind", ["stored", "stored on the host", "games", "files"])
def test_batches_are_the_cpus_to_the_bit(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "stored on the host":
        monkeypatch.setattr("rlcnn.data.batches._SHARE_OF_GPU", 0.0)
    data = {"games": games, "files": lambda: files(tmp_path)}.get(kind, split)()
    trainers = [make_trainer(replace(CONFIG, device=device), data) for device in ("cpu", "cuda")]
    host, gpu = (trainer.train for trainer in trainers)
    for number in range(2):
        # Read after the epoch: no batch may have been overwritten by a later one.
        batches = list(gpu.epoch(number))
        assert all(part.device.type == "cuda" for batch in batches for part in batch)
        for batch, expected in zip(batches, host.epoch(number), strict=True):
            assert torch.equal(batch.images.cpu(), expected.images)
            assert torch.equal(batch.labels.cpu(), expected.labels)


@pytest.mark.parametrize("data", [split, games])
def test_an_update_is_the_cpus(data: Any) -> None:
    found = []
    for device in ("cpu", "cuda"):
        trainer = make_trainer(replace(CONFIG, device=device), data())
        next(trainer.learn_epoch())
        found.append((gradients(trainer.network), trainer._sums.cpu()))
    (expected, sums), (own, own_sums) = found
    torch.testing.assert_close(own_sums, sums, **CLOSE)
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    # A gradient is a difference of terms as large as the largest: its error is one of those.
    torch.testing.assert_close(own, expected, rtol=1e-3, atol=1e-4 * largest)


def test_an_update_waits_for_no_device() -> None:
    trainer = make_trainer(replace(CONFIG, optimizer="adamw", learning_rate=1e-3))
    updates = trainer.learn_epoch()
    # The first update copies constants to the device and lets cuDNN choose.
    next(updates)
    torch.cuda.set_sync_debug_mode("error")
    try:
        next(updates)
        next(updates)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_resumed_training_is_equal_to_the_bit(optimizer: Any, tmp_path: Path) -> None:
    config = replace(
        CONFIG, optimizer=optimizer, learning_rate=1e-3, dropout=0.3, encoder="lenet",
        encoder_options={"features_dim": 16},
    )  # fmt: skip
    straight = make_trainer(config)
    for _ in straight.learn_epoch():
        if straight.step == 1:
            straight.save(tmp_path, {})
    resumed = make_trainer(config)
    resumed.restore(tmp_path)
    assert all(
        value.is_cuda for state in resumed._optimizer.state.values() for value in state.values()
    )
    for _ in resumed.learn_epoch():
        pass
    assert resumed.epoch_metrics() == straight.epoch_metrics()
    for own, expected in zip(
        resumed.evaluated.state_dict().values(),
        straight.evaluated.state_dict().values(),
        strict=True,
    ):
        assert torch.equal(own, expected)


@pytest.mark.parametrize(("first", "second"), [("cuda", "cpu"), ("cpu", "cuda")])
def test_a_training_goes_on_on_another_device(first: str, second: str, tmp_path: Path) -> None:
    config = replace(CONFIG, optimizer="adamw", learning_rate=1e-3)
    trainer = make_trainer(replace(config, device=first))
    next(trainer.learn_epoch())
    trainer.save(tmp_path, {})
    expected = trainer.evaluate()
    resumed = make_trainer(replace(config, device=second))
    resumed.restore(tmp_path)
    assert resumed.evaluate()["test/loss"] == pytest.approx(expected["test/loss"], rel=1e-4)
    for _ in resumed.learn_epoch():
        pass
    assert resumed.epoch_metrics()["train/loss"] > 0
    fused = [group["fused"] for group in resumed._optimizer.param_groups]
    assert fused == [second == "cuda" or None] * len(fused)


def test_evaluation_is_the_cpus() -> None:
    trainers = [make_trainer(replace(CONFIG, device=device), games()) for device in ("cpu", "cuda")]
    expected, own = (trainer.held_out_logits(trainer.test) for trainer in trainers)
    torch.testing.assert_close(own, expected, **CLOSE)


def test_bf16_learns_as_fp32_does() -> None:
    losses = []
    for config in (CONFIG, replace(CONFIG, precision="bf16")):
        trainer = make_trainer(config)
        next(trainer.learn_epoch())
        losses.append(trainer.epoch_metrics()["train/loss"])
        assert all(p.dtype == torch.float32 for p in trainer.network.parameters())
    # 8 bits of mantissa.
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


@pytest.mark.parametrize("crops", [1, 10])
def test_an_assessment_is_the_cpus(crops: int, tmp_path: Path) -> None:
    save_classifier(make_trainer(CONFIG).evaluated, tmp_path / "it.safetensors")
    found = []
    for device in ("cpu", "cuda"):
        networks = [load_network(str(tmp_path / "it.safetensors"), resize=20, device=device)] * 2
        assessment = assess(networks, pictures(4), crops=crops, batch_size=30, device=device)
        found.append(
            [assessment.together.probabilities, *(m.probabilities for m in assessment.members)]
        )
    torch.testing.assert_close(found[1], found[0], **CLOSE)


def test_features_and_baselines_are_the_cpus() -> None:
    features, figures = [], []
    data = split(8)
    for device in ("cpu", "cuda"):
        trainer = make_trainer(replace(CONFIG, device=device), data)
        torch.manual_seed(1)
        encoder = create_encoder("lenet", (3, 16, 16), features_dim=16)
        features.append(encode(encoder, data.test, device=device, batch_size=7, max_features=8))
        fitted = fit_baselines(encoder, trainer.train, trainer.test, seed=0)
        figures.append({name: baseline.figures["test/top1"] for name, baseline in fitted.items()})
    torch.testing.assert_close(features[1], features[0], **CLOSE)
    # One of the 24 images may lie on a border.
    assert figures[1] == pytest.approx(figures[0], abs=1 / 24 + 1e-6)


def test_results_are_read_late_and_whole() -> None:
    device = torch.device("cuda")
    batches = [(torch.full((1000, 1000), float(number)),) for number in range(20)]

    def results() -> Iterator[torch.Tensor]:
        for (values,) in Prefetcher(device).prefetch(map(_One._make, batches)):
            yield values @ values

    for number, result in enumerate(read_late(results(), device)):
        assert result.device.type == "cpu"
        assert torch.equal(result, torch.full((1000, 1000), 1000.0 * number**2))
