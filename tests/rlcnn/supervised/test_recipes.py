"""Configurations of a training on labelled images, and the recipes that are their defaults."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.picture_files import refused

from rlcnn.data.atari.options import FrameOptions
from rlcnn.data.augment_options import AugmentConfig
from rlcnn.runs.files import write_json_atomic
from rlcnn.supervised.config import (
    RECIPE_NAMES,
    PretrainConfig,
    read_pretrain_config,
)
from rlcnn.supervised.recipes import RECIPES, recipe_config

CONFIG = PretrainConfig(data="mnist", encoder="lenet", epochs=164)


def test_the_residual_networks_recipe_is_he_et_als() -> None:
    config = recipe_config("resnet-cifar-2016")
    assert (config.encoder, config.encoder_options, config.data) == (
        "cifar_resnet",
        {"depth": 20},
        "cifar10",
    )
    assert (config.optimizer, config.learning_rate, config.momentum) == ("sgd", 0.1, 0.9)
    assert (config.weight_decay, config.decay_all, config.batch_size) == (1e-4, True, 128)
    # 64,000 updates.
    assert config.epochs * 391 == pytest.approx(64_000, rel=0.005)
    assert config.augment == AugmentConfig(crop=32, crop_padding=4, flip=True)


def test_alexnets_recipe_is_krizhevsky_et_als() -> None:
    config = recipe_config("alexnet-2012")
    assert (config.optimizer, config.learning_rate, config.momentum) == ("sgd", 0.01, 0.9)
    assert (config.weight_decay, config.batch_size, config.epochs) == (5e-4, 128, 90)
    assert len(config.milestones) == 3
    assert config.augment == AugmentConfig(resize=256, crop=227, flip=True)


def test_lenets_recipe_sees_digits_in_the_middle_of_32x32() -> None:
    config = recipe_config("lenet5-1998")
    assert (config.encoder, config.encoder_options) == ("lenet", {"variant": "lecun1998"})
    assert (config.data, config.epochs, config.augment) == ("mnist", 20, AugmentConfig(pad=2))


def test_recipes_without_labels_are_sgis_and_atcs() -> None:
    sgi, atc = recipe_config("sgi-2021"), recipe_config("atc-2021")
    assert sgi.weights_by_objective == {"spr": 1.0, "inverse": 1.0}
    assert (sgi.batch_size, sgi.learning_rate, sgi.epochs) == (256, 1e-4, 20)
    assert (sgi.jumps, sgi.target_decay, sgi.weight_decay) == (5, 0.99, 0.0)
    assert atc.weights_by_objective == {"contrastive": 1.0}
    assert (atc.batch_size, atc.learning_rate, atc.contrast_steps) == (512, 1e-3, 3)
    # 20,000 updates, of which 1,000 are the warm-up.
    per_epoch = atc.frames.train_frames / atc.batch_size
    assert atc.epochs * per_epoch == pytest.approx(20_000, rel=0.03)
    assert atc.warmup_epochs * per_epoch == pytest.approx(1_000, rel=0.03)


@pytest.mark.parametrize("name", RECIPE_NAMES)
def test_every_recipe_is_valid_and_comes_back_from_json(name: Any) -> None:
    config = recipe_config(name)
    config.validate()
    assert config.recipe == name
    assert PretrainConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
    assert set(RECIPES) == set(RECIPE_NAMES)


def test_another_encoder_leaves_the_recipes_options_of_its_own_behind() -> None:
    assert recipe_config("resnet-cifar-2016", "resnet9").encoder_options == {}
    assert recipe_config("resnet-cifar-2016", "cifar_resnet").encoder_options == {"depth": 20}


BAD: list[tuple[dict[str, Any], list[str]]] = [
    ({"recipe": "resnet"}, ['--recipe "resnet" is unknown', '"resnet9-2018"?']),
    ({"data": "mnits"}, ['--data "mnits" is unknown', '"mnist"?']),
    ({"colours": "rgb"}, ["--colours rgb is for folder: data", '"mnist"']),
    ({"encoder": "lenett"}, ['--encoder "lenett" is unknown', '"lenet"?']),
    ({"epochs": 0}, ["--epochs 0 must be at least 1"]),
    ({"batch_size": 0}, ["--batch-size 0 must be at least 1"]),
    ({"learning_rate": -1.0}, ["--learning-rate -1.0 must be at least 0"]),
    ({"learning_rate": float("nan")}, ["--learning-rate nan"]),
    ({"momentum": 1.0}, ["--momentum 1 learns nothing"]),
    ({"label_smoothing": 1.5}, ["--label-smoothing 1.5", "at most 1"]),
    ({"ema": 1.0}, ["--ema 1 learns nothing"]),
    ({"dropout": -0.1}, ["--dropout -0.1"]),
    ({"warmup_epochs": 200.0}, ["--warmup-epochs 200.0", "at most 164"]),
    ({"milestones": (0.5, 60.0)}, ["--milestones 60.0", "at most 1"]),
    ({"schedule": "cosin"}, ['--schedule "cosin"', '"cosine"?']),
    ({"optimizer": "adam"}, ['--optimizer "adam"', '"adamw"?']),
    ({"optimizer": "adamw", "nesterov": True}, ["--nesterov"]),
    ({"seed": -1}, ["--seed -1"]),
    ({"augment": AugmentConfig(crop=-1)}, ["--augment.crop -1"]),
    ({"augment": AugmentConfig(scale_from=1.2)}, ["--augment.scale-to 1.0", "1.2"]),
    ({"augment": AugmentConfig(edge="mirror")}, ['--augment.edge "mirror"']),  # type: ignore[arg-type]
    ({"frames": FrameOptions(obs_size=0)}, ["0"]),
    ({"device": "gpu"}, ['unknown device "gpu"']),
]


@pytest.mark.parametrize("changes, said", BAD, ids=[str(changes) for changes, _ in BAD])
def test_what_is_not_valid_is_one_line(changes: dict[str, Any], said: list[str]) -> None:
    with refused(*said):
        config = replace(CONFIG, **changes)
        config.validate()
        config.resolve()


def test_auto_depends_on_the_machine_and_the_data() -> None:
    config = replace(CONFIG, device="cpu").resolve()
    assert config.precision in ("fp32", "bf16")
    assert config.num_threads >= 1
    assert config.baselines == "off"
    assert replace(CONFIG, data="atari:Pong").resolve().baselines == "on"
    assert replace(CONFIG, data="atari:Pong", baselines="off").resolve().baselines == "off"


def test_a_configuration_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with refused(str(path), "is not a file"):
        read_pretrain_config(path)
    write_json_atomic(path, {"config": {}})
    with refused("no configuration of a pretraining but that of an agent's training"):
        read_pretrain_config(path)
    with refused("is not a file", f'Did you mean "{path}"?'):
        read_pretrain_config(tmp_path)
    write_json_atomic(path, {"pretraining": {"epoch": 3}})
    with refused(str(path), 'unknown option "epoch"', '"epochs"?'):
        read_pretrain_config(path)
    write_json_atomic(path, {"pretraining": {"augment": {"crop": "large"}}})
    with refused("augment.crop", "must be int"):
        read_pretrain_config(path)
