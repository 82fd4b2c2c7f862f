"""Images, minibatches and the network of a pretraining configuration."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from envs.errors import UserError
from rlcnn.data.atari.options import LoadPolicies, PolicyPlay
from rlcnn.data.augment import Augmentation, bring_to_size
from rlcnn.data.batches import Batches
from rlcnn.data.by_name import load_data
from rlcnn.data.images import (
    UNKNOWN,
    ImageFiles,
    Split,
    StackedFrames,
    StoredImages,
    draw_indices,
)
from rlcnn.data.names import ATARI
from rlcnn.encoders import Encoder, create_encoder, with_frame_channels
from rlcnn.encoders.base import size_option
from rlcnn.encoders.freezing import frozen_layers
from rlcnn.runs.files import plain
from rlcnn.selfsupervised.options import CLASSIFY
from rlcnn.selfsupervised.setup import Parts, make_network, sequences_of
from rlcnn.supervised.classifier import Classifier
from rlcnn.supervised.config import PretrainConfig
from rlcnn.supervised.trainer import Trainer
from rlcnn.weights.load import load_into, read_spec

CHANNELS = {"auto": None, "grey": 1, "rgb": 3}


def load_images(
    config: PretrainConfig,
    report: Callable[[str], None],
    load_policies: LoadPolicies | None = None,
    before: Mapping[str, Any] | None = None,
) -> Split:
    """The images of a configuration, not yet resized.

    ``report`` gets lines about the images and about what takes long. ``load_policies`` makes the
    policies of the configuration's ``players``. ``before`` is the result of :func:`describe` for
    the images that a run to be resumed learns from.

    Raises:
        UserError: as :func:`rlcnn.data.by_name.load_data`; ``load_policies`` is missing; or a
            policy has changed, as it does when its own run has learned more since.
    """
    policies: Mapping[str, PolicyPlay] = {}
    if config.players:
        if load_policies is None:
            raise UserError(
                "--players need load_policies: agents.evaluate.players.load_players makes them"
            )
        policies = load_policies(config.players, config.frames, config.seed)
    known = (before or {}).get("games", {}).get("policies", {})
    for game, policy in policies.items():
        if known.get(game, policy.name) != policy.name:
            raise UserError(
                f"the agent that plays {game} has changed since this run began: it has a newer"
                " checkpoint. Begin a new run from its config.json with --config"
            )
    if config.data.startswith(ATARI):
        report(f"{config.data}: playing, unless kept in {config.data_dir} from an earlier run")
    split = load_data(
        config.data,
        Path(config.data_dir),
        seed=config.seed,
        channels=CHANNELS[config.colours],
        frames=config.frames,
        policies=policies,
        consecutive=config.needs_sequences,
    )
    if config.train_size is not None:
        split = _draw_training_images(split, config.train_size, config.seed)
    report(f"{config.data}: {counted(describe(split))}")
    return split


def _draw_training_images(split: Split, count: int, seed: int) -> Split:
    train = split.train
    # Frames of games, which are neither, are drawn as they are played.
    assert isinstance(train, StoredImages | ImageFiles)
    drawn = draw_indices(train.labels[:, 0], count, np.random.default_rng(seed), "train")
    return split._replace(train=train.subset(drawn))


def check_start(config: PretrainConfig) -> None:
    """Refuses what a training cannot start with, before images are loaded: an encoder, its weights,
    a node to unfreeze it from.

    Only games have observations of a known shape, so that everything can be checked.

    Raises:
        UserError: as :func:`rlcnn.weights.load_into`; games' observations are too small.
    """
    if config.data.startswith(ATARI):
        frames, crop = config.frames, config.augment.crop
        channels = frames.frame_stack * frames.frame_channels
        size = crop or frames.obs_size
        shape = (channels, size, size)
        encoder = _create_encoder(config, shape)
        frozen_layers(encoder, config.mode, config.unfreeze_from)
        if config.weights != "none":
            load_into(encoder, config.weights)
        if config.needs_sequences:
            make_network(Parts(config, encoder, tasks=(), actions=1))
    elif config.weights not in ("none", "imagenet"):
        read_spec(config.weights)


def describe(split: Split) -> dict[str, Any]:
    """The tasks and image counts as JSON; equal for equal labels in equal order."""
    facts: dict[str, Any] = {
        "tasks": [{"name": t.name, "classes": list(t.classes)} for t in split.train.tasks],
        **{
            name: {"images": len(part), "labels_crc32": zlib.crc32(part.labels.numpy().tobytes())}
            for name, part in split._asdict().items()
        },
    }
    if isinstance(split.train, StackedFrames):
        facts["games"] = plain(split.train.about)
    return facts


def counted(data: Mapping[str, Any]) -> str:
    """The result of :func:`describe` in a few words."""
    classes = sum(len(task["classes"]) for task in data["tasks"])
    tasks = f"{len(data['tasks'])} tasks and " if len(data["tasks"]) > 1 else ""
    images = " and ".join(f"{data[part]['images']:,} to {part}" for part in ("train", "test"))
    return f"{images}, of {tasks}{classes} classes" if classes else f"{images}, without labels"


def _create_encoder(config: PretrainConfig, shape: tuple[int, int, int]) -> Encoder:
    of_games = config.data.startswith(ATARI)
    channels = config.frames.frame_channels if of_games else None
    options = with_frame_channels(config.encoder, config.encoder_options, channels)
    larger = "--frames.obs-size" if of_games else "--augment.resize"
    with size_option("--augment.crop" if config.augment.crop else larger):
        return create_encoder(config.encoder, shape, **options)


class PretrainingSetup:
    """Training and held-out minibatches of a configuration, and encoders and trainers for them."""

    def __init__(self, config: PretrainConfig, split: Split) -> None:
        """Resizes the images of a run whose every "auto" is resolved.

        Raises:
            UserError: they cannot have the configured size, or no held-out image has a class.
        """
        self.config = config
        images = [bring_to_size(part, config.augment) for part in split]
        classifies = CLASSIFY in config.weights_by_objective
        if classifies and (images[1].labels == UNKNOWN).all():
            raise UserError("no held-out image has a known class: nothing can be evaluated")
        augmentation = Augmentation(config.augment, images[0])
        self._image_shape = augmentation.output_shape
        self.train, self.test = (
            Batches(
                part,
                augmentation,
                batch_size=config.batch_size,
                seed=config.seed,
                device=torch.device(config.device),
                workers=config.num_workers,
            )
            for part in images
        )

    def make_encoder(self, seed: int) -> Encoder:
        """A new encoder, equal for equal seeds; seeds torch's global generators."""
        torch.manual_seed(seed)
        return _create_encoder(self.config, self._image_shape)

    def make_trainer(self, encoder: Encoder) -> Trainer:
        """A trainer of the encoder with new heads.

        Raises:
            UserError: the games are too short for the objectives' sequences, or the encoder has no
                node to be unfrozen from.
        """
        config, images = self.config, self.train.images
        frozen = frozen_layers(encoder, config.mode, config.unfreeze_from)
        if config.needs_sequences:
            assert isinstance(images, StackedFrames)
            assert images.actions is not None
            parts = Parts(config, encoder, images.tasks, len(images.actions.names))
            network = make_network(parts)
            network.freeze(frozen)
            train, test = (sequences_of(part, network, config) for part in (self.train, self.test))
            return Trainer(config, network, train, test)
        classifier = Classifier(
            encoder, images.tasks, dropout=config.dropout, label_smoothing=config.label_smoothing
        )
        classifier.freeze(frozen)
        return Trainer(config, classifier, self.train, self.test)
