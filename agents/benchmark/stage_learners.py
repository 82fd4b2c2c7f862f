"""Parts of training, and supervised training, as learners that a worker process can measure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import torch

from agents.benchmark.stages import (
    Variant,
    emulator_stage,
    environment_stage,
    spaces_of,
    update_stage,
)
from agents.config import TrainConfig
from agents.measure.learners import Learner
from agents.measure.timing import Loop
from rlcnn.data.images import Split, StoredImages, Task
from rlcnn.supervised.recipes import recipe_config
from rlcnn.supervised.setup import PretrainingSetup

_CLASSES = tuple(str(number) for number in range(10))
# One emulator step is too short to predict how many fit into a sample.
_REPEATS = 50


class StageLearner(Learner):
    """A part of training as a :class:`~agents.measure.learners.Learner`; it does not learn.

    The units of its loop count as steps.
    """

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self.least_steps = _REPEATS * loop.units

    def learn(self, steps: int) -> int:
        """Does ``steps`` units of work, rounded up to whole pieces; the units really done."""
        return self._loop.repeat(-(-steps // self._loop.units))

    def close(self) -> None:
        """Frees what the work needed."""
        self._loop.close()


def emulators_alone(config: TrainConfig) -> StageLearner:
    """ale-py's own vector environment with random actions; units are environment steps."""
    return StageLearner(emulator_stage(config, min(config.num_threads, config.num_envs)))


def environments_alone(config: TrainConfig) -> StageLearner:
    """The same games through the environments of our agents."""
    return StageLearner(environment_stage(config))


def update_alone(config: TrainConfig) -> StageLearner:
    """Updates from a minibatch on the device, on a GPU as a graph; units are samples."""
    variant = Variant(_arithmetic(config), config.num_threads, graph=config.device != "cpu")
    return StageLearner(update_stage(config, *spaces_of(config), variant))


class SupervisedLearner(Learner):
    """A CIFAR ResNet-20 that learns from random images, 3x32x32; steps are images.

    The project's own trainer with the recipe of He et al. 2016 and its augmentation, without
    evaluations and checkpoints. ``config`` gives device, precision and threads.
    """

    def __init__(self, config: TrainConfig, images: int, batch_size: int) -> None:
        recipe = replace(
            recipe_config("resnet-cifar-2016"),
            device=config.device,
            precision=_arithmetic(config),
            num_threads=config.num_threads,
            batch_size=batch_size,
            # The schedule of the learning rate never ends.
            epochs=10**6,
        )
        setup = PretrainingSetup(recipe, Split(_random_images(images), _random_images(batch_size)))
        self._trainer = setup.make_trainer(setup.make_encoder(recipe.seed))
        self._updates: Iterator[int] = iter(())
        self.least_steps = images

    def learn(self, steps: int) -> int:
        """Learns from ``steps`` images, rounded up to whole minibatches; images really used."""
        seen = 0
        while seen < steps:
            update = next(self._updates, None)
            if update is None:
                self._updates = self._trainer.learn_epoch()
            else:
                seen += update
        return seen

    def close(self) -> None:
        """Ends the current epoch."""
        self._updates = iter(())


def _arithmetic(config: TrainConfig) -> Literal["fp32", "bf16"]:
    return "bf16" if config.precision == "bf16" else "fp32"


def _random_images(count: int) -> StoredImages:
    images = torch.randint(256, (count, 3, 32, 32), dtype=torch.uint8)
    labels = torch.arange(count) % len(_CLASSES)
    return StoredImages(images, labels, [Task("class", _CLASSES)])
