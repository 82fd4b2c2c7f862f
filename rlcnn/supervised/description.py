"""A training on labelled images in a few labelled lines, and the commands that follow it."""

from __future__ import annotations

from envs.errors import in_shell
from rlcnn.accelerate.devices import describe_device
from rlcnn.runs.commands import Facts, script
from rlcnn.runs.directory import RunDirectory
from rlcnn.supervised.config import PretrainConfig
from rlcnn.supervised.setup import PretrainingSetup
from rlcnn.supervised.trainer import Trainer


def describe_pretraining(
    config: PretrainConfig, setup: PretrainingSetup, trainer: Trainer
) -> Facts:
    """The data, encoder, recipe and device of a resolved configuration."""
    encoder = trainer.classifier.encoder
    options = "".join(f", {name} {value}" for name, value in config.encoder_options.items())
    start = "random weights" if config.weights == "none" else config.weights
    count = sum(p.numel() for p in encoder.parameters())
    return [
        ("data", f"{config.data}, {len(setup.train.images):,} training images"),
        ("encoder", f"{config.encoder}{options}, {count:,} parameters, train from {start}"),
        ("recipe", f"{config.recipe}, {config.optimizer}, {config.epochs} epochs"),
        ("device", describe_device(config.device, config.precision, config.num_threads)),
    ]


def next_commands(config: PretrainConfig, run: RunDirectory) -> Facts:
    """The commands to evaluate and extend a finished run, and to train an agent from it."""
    path = in_shell(run.path)
    extend = f"{script('pretrain_encoder.py')} --resume {path} --epochs {2 * config.epochs}"
    agent = f"{script('train_agent.py')} --encoder {config.encoder} --weights {path}"
    return [
        ("evaluate", f"{script('evaluate_classifier.py')} {path}"),
        ("extend", extend),
        ("train agent", f"{agent} --mode finetune"),
    ]
