"""A training on labelled images in a few labelled lines, and the commands that follow it."""

from __future__ import annotations

from dataclasses import replace

from envs.errors import in_shell
from rlcnn.accelerate.devices import describe_device
from rlcnn.data.atari.options import FrameOptions
from rlcnn.data.names import ATARI
from rlcnn.encoders import Encoder
from rlcnn.encoders.frames import FrameEncoder
from rlcnn.runs.commands import Facts, script
from rlcnn.runs.directory import RunDirectory
from rlcnn.selfsupervised.options import CLASSIFY
from rlcnn.supervised.config import PretrainConfig
from rlcnn.supervised.setup import PretrainingSetup
from rlcnn.supervised.trainer import Trainer


def describe_pretraining(
    config: PretrainConfig, setup: PretrainingSetup, trainer: Trainer
) -> Facts:
    """The data, encoder, recipe and device of a resolved configuration."""
    encoder = trainer.network.encoder
    options = "".join(f", {name} {value}" for name, value in config.encoder_options.items())
    count = sum(p.numel() for p in encoder.parameters())
    objectives = []
    if config.needs_sequences:
        pairs = config.weights_by_objective.items()
        added = " + ".join(f"{weight:g} {name}" for name, weight in pairs)
        sequences = f"{added}, {len(trainer.train):,} sequences"
        objectives.append(("objectives", sequences))
    return [
        ("data", f"{config.data}, {len(setup.train.images):,} training images"),
        *objectives,
        ("encoder", f"{config.encoder}{options}, {count:,} parameters, {_mode(config)}"),
        ("recipe", f"{config.recipe}, {config.optimizer}, {config.epochs} epochs"),
        ("device", describe_device(config.device, config.precision, config.num_threads)),
    ]


def _mode(config: PretrainConfig) -> str:
    start = "random weights" if config.weights == "none" else config.weights
    if config.mode == "frozen":
        return f"frozen {start}"
    if config.mode == "train":
        return f"train from {start}"
    learned = f", the layers from {config.unfreeze_from} on" if config.unfreeze_from else ""
    return f"finetune from {start}{learned}, at {config.finetune_factor:g} of the rate"


def next_commands(config: PretrainConfig, run: RunDirectory, encoder: Encoder) -> Facts:
    """The commands that follow a finished run: evaluate, extend, and train an agent from it."""
    path = in_shell(run.path)
    extend = f"{script('pretrain_encoder.py')} --resume {path} --epochs {2 * config.epochs}"
    agent = [f"{script('train_agent.py')} --encoder {config.encoder} --weights {path}"]
    if config.encoder_options:
        pairs = [f"{name} {value}" for name, value in config.encoder_options.items()]
        agent.append(f"--encoder-options {' '.join(pairs)}")
    agent += [*_observation_options(config, encoder), "--mode finetune"]
    evaluate = []
    if CLASSIFY in config.weights_by_objective:
        evaluate.append(("evaluate", f"{script('evaluate_classifier.py')} {path}"))
    return [
        *evaluate,
        ("extend", extend),
        ("train agent", " ".join(agent)),
    ]


def _observation_options(config: PretrainConfig, encoder: Encoder) -> list[str]:
    """The options by which an agent observes what the encoder was trained on."""
    usual = FrameOptions()
    channels, _, width = encoder.observation_shape
    if config.data.startswith(ATARI):
        seen = config.frames
    else:
        # An encoder that encodes each frame alone takes any number of them.
        stack = usual.frame_stack if isinstance(encoder, FrameEncoder) else 1
        seen = replace(usual, obs="rgb" if channels == 3 else "grey", frame_stack=stack)
    options = (
        ("--obs", seen.obs, usual.obs),
        ("--obs-size", width, usual.obs_size),
        ("--frame-stack", seen.frame_stack, usual.frame_stack),
    )
    return [f"{name} {value}" for name, value, default in options if value != default]
