"""Learning from labelled images: that it learns, and that it can be repeated and gone on with."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.picture_files import refused, split
from torch.utils._python_dispatch import TorchDispatchMode

from rlcnn.data.augment import Augmentation
from rlcnn.data.augment_options import AugmentConfig
from rlcnn.data.batches import Batches
from rlcnn.data.images import UNKNOWN, Split, StoredImages, Task
from rlcnn.encoders import create_encoder
from rlcnn.runs.torch_state import load_torch, save_torch
from rlcnn.supervised.classifier import Classifier
from rlcnn.supervised.config import PretrainConfig
from rlcnn.supervised.trainer import NETWORK, Trainer

# Everything on that has a state or draws: dropout, a moving average, momentum, augmentation.
CONFIG = PretrainConfig(
    encoder="lenet",
    encoder_options={"features_dim": 16},
    epochs=3,
    batch_size=10,
    optimizer="sgd",
    learning_rate=0.05,
    schedule="cosine",
    dropout=0.3,
    ema=0.9,
    label_smoothing=0.1,
    augment=AugmentConfig(crop=16, crop_padding=1, cutout=3),
    device="cpu",
    precision="fp32",
)


def make_trainer(config: PretrainConfig = CONFIG, data: Split | None = None) -> Trainer:
    data = data or split(8)
    torch.manual_seed(config.seed)
    augmentation = Augmentation(config.augment, data.train)
    train, test = (
        Batches(
            part,
            augmentation,
            batch_size=config.batch_size,
            seed=config.seed,
            device=torch.device("cpu"),
        )
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


def learn(trainer: Trainer, epochs: int = CONFIG.epochs) -> list[dict[str, float]]:
    """Learns to the end, from wherever it stands; the figures of each epoch."""
    rows = []
    while trainer.epoch < epochs:
        for _ in trainer.learn_epoch():
            pass
        rows.append(trainer.epoch_metrics() | trainer.evaluate())
    return rows


def weights(trainer: Trainer) -> dict[str, bytes]:
    """What was learned and its moving average, bit for bit."""
    networks = {"own": trainer.network, "evaluated": trainer.evaluated}
    return {
        f"{kind}.{name}": tensor.numpy().tobytes()
        for kind, network in networks.items()
        for name, tensor in network.state_dict().items()
    }


@pytest.mark.usefixtures("one_thread")
def test_the_same_training_twice_is_equal_to_the_bit() -> None:
    one = make_trainer()
    rows = learn(one)
    other = make_trainer()
    assert learn(other) == rows
    assert weights(one) == weights(other)
    another = make_trainer(replace(CONFIG, seed=1))
    learn(another)
    assert weights(another) != weights(one)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"optimizer": "adamw", "ema": 0.0, "learning_rate": 1e-3},
        # Images one by one, by torch's loader.
        {"augment": AugmentConfig(scale_from=0.8, scale_to=1.2, flip=True)},
    ],
)
@pytest.mark.parametrize("updates", [3, 5])
def test_going_on_from_anywhere_is_equal_to_the_bit(
    options: dict[str, Any], updates: int, tmp_path: Path
) -> None:
    config = replace(CONFIG, **options)
    straight = make_trainer(config)
    expected = learn(straight)

    stopped = make_trainer(config)
    # 48 images make five updates an epoch.
    while stopped.step < updates:
        for _ in stopped.learn_epoch():
            if stopped.step == updates:
                break
        else:
            stopped.epoch_metrics()
    stopped.save(tmp_path, {"note": 1})
    resumed = make_trainer(replace(config, seed=0))
    assert resumed.restore(tmp_path) == {"note": 1}
    assert resumed.step == updates
    # Whatever else draws in between.
    rows = learn(resumed)
    assert rows == expected[-len(rows) :]
    assert weights(resumed) == weights(straight)


class NoWaits(TorchDispatchMode):
    """Refuses operations for which the host would wait for a GPU: those that read values."""

    WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "unique", "equal")

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        assert not func.__name__.startswith(self.WAITS), f"{func} waits for a GPU"
        indices = args[1] if func.__name__.startswith("index.Tensor") else ()
        assert all(index is None or index.dtype != torch.bool for index in indices), "boolean index"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_no_update_reads_a_value(optimizer: Any) -> None:
    augment = AugmentConfig(crop=16, crop_padding=2, edge="mean", flip=True, cutout=3)
    trainer = make_trainer(replace(CONFIG, optimizer=optimizer, augment=augment))
    # AdamW counts its updates on the host, unless its step is fused as it is on a GPU.
    for group in trainer._optimizer.param_groups:
        group["fused"] = True
    batches = trainer.train.epoch(0)
    for _ in range(3):
        batch = next(batches)
        with NoWaits():
            trainer._update(batch)
    with NoWaits(), pytest.raises(AssertionError, match="waits for a GPU"):
        float(trainer._sums[0])


def test_the_kernels_of_a_checkpoint_are_those_of_its_device(tmp_path: Path) -> None:
    config = replace(CONFIG, optimizer="adamw", ema=0.0)
    # As a GPU's state says.
    saved = make_trainer(config)
    for group in saved._optimizer.param_groups:
        group["fused"] = True
    for _ in saved.learn_epoch():
        pass
    saved.save(tmp_path, {})
    resumed = make_trainer(config)
    resumed.restore(tmp_path)
    assert [group["fused"] for group in resumed._optimizer.param_groups] == [None, None]
    assert resumed._optimizer.param_groups[0]["weight_decay"] == config.weight_decay
    moments, expected = resumed._optimizer.state_dict(), saved._optimizer.state_dict()
    torch.testing.assert_close(moments["state"], expected["state"], rtol=0, atol=0)


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_what_can_be_learned_is(precision: Any) -> None:
    config = replace(
        CONFIG, epochs=6, dropout=0.0, ema=0.0, augment=AugmentConfig(), precision=precision
    )
    rows = learn(make_trainer(config, split(24)), epochs=6)
    # Six classes, which differ in where the image is bright.
    assert rows[-1]["test/top1"] > 0.9
    assert rows[-1]["train/loss"] < rows[0]["train/loss"]
    assert rows[-1]["test/top5"] == 1
    assert all(
        parameter.dtype == torch.float32
        for parameter in make_trainer(config).evaluated.parameters()
    )


def test_the_moving_average_is_one_of_the_weights() -> None:
    config = replace(CONFIG, epochs=1, ema=0.5, dropout=0.0)
    trainer = make_trainer(config)
    average: torch.Tensor | None = None
    for _ in trainer.learn_epoch():
        now = trainer.network.head.weight.detach().clone()
        average = now if average is None else 0.5 * average + 0.5 * now
    assert average is not None
    torch.testing.assert_close(trainer.evaluated.head.weight.detach(), average)
    assert trainer.evaluated is not trainer.network
    without = make_trainer(replace(config, ema=0.0))
    assert without.evaluated is without.network


def test_a_loss_that_is_no_number_is_one_line() -> None:
    trainer = make_trainer(replace(CONFIG, learning_rate=1e30, ema=0.0))
    with refused("the loss is no longer a finite number", "--learning-rate than 1e+30"):
        learn(trainer)


def test_a_training_that_diverged_is_not_saved_within_an_epoch(tmp_path: Path) -> None:
    trainer = make_trainer(replace(CONFIG, learning_rate=1e30, ema=0.0))
    with closing(trainer.learn_epoch()) as updates:
        assert next(updates) + next(updates) == 2 * CONFIG.batch_size
        with refused("no longer a finite number in epoch 1", "--learning-rate than 1e+30"):
            trainer.save(tmp_path, {})
    assert not list(tmp_path.iterdir())


def test_parameters_that_the_last_update_spoiled_are_refused(tmp_path: Path) -> None:
    trainer = make_trainer()
    list(trainer.learn_epoch())
    torch.nn.init.constant_(trainer.network.head.bias, float("inf"))
    with refused("no longer a finite number in epoch 1"):
        trainer.epoch_metrics()
    with refused("no longer a finite number in epoch 1"):
        trainer.save(tmp_path, {})


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    trainer = make_trainer()
    trainer.save(tmp_path, {})
    (tmp_path / "network.pt").write_bytes(b"")
    with refused("network.pt", "damaged"):
        make_trainer().restore(tmp_path)
    trainer.save(tmp_path, {})
    other = make_trainer(replace(CONFIG, encoder_options={"features_dim": 8}))
    with refused(f"checkpoint {tmp_path} is damaged"):
        other.restore(tmp_path)


def test_one_classifier_learns_several_tasks_of_which_not_all_is_known() -> None:
    train, test = split(16)
    assert isinstance(train, StoredImages)
    assert isinstance(test, StoredImages)
    tasks = [*train.tasks, Task("bright", ("no", "yes"))]

    def with_bright(part: StoredImages) -> StoredImages:
        bright = (part.labels[:, 0] == 1).long()
        bright[::3] = UNKNOWN
        return StoredImages(part.images, torch.stack([part.labels[:, 0], bright], 1), tasks)

    config = replace(CONFIG, epochs=8, dropout=0.0, ema=0.0, augment=AugmentConfig())
    rows = learn(make_trainer(config, Split(with_bright(train), with_bright(test))), epochs=8)
    assert rows[-1]["test/top1/class"] > 0.85
    assert rows[-1]["test/top1/bright"] > 0.85
    assert rows[-1]["train/top1/bright"] > 0.85


def test_a_checkpoint_without_gradient_norms_is_restored(tmp_path: Path) -> None:
    trainer = make_trainer()
    next(trainer.learn_epoch())
    trainer.save(tmp_path, {})
    network = load_torch(tmp_path / NETWORK)
    sums = network["sums"][:-1]
    save_torch({**network, "sums": sums}, tmp_path / NETWORK)
    again = make_trainer()
    again.restore(tmp_path)
    assert again._sums.tolist() == [*sums.tolist(), 0.0]
