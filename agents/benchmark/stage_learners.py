"""Parts of training, and supervised training, as learners: measured in a process of their own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Literal

import torch
from gymnasium import spaces

from agents.benchmark.stages import Variant, emulator_stage, environment_stage, update_stage
from agents.config import TrainConfig
from agents.measure.timing import Loop
from agents.train.builder import make_train_env
from rlcnn.data.images import Split, StoredImages, Task
from rlcnn.supervised.recipes import recipe_config
from rlcnn.supervised.setup import PretrainingSetup

_CLASSES = tuple(str(number) for number in range(10))
# One emulator step is too short to predict how many fit into a stretch.
_REPEATS = 50


class StageLearner:
    """A part of training as a :class:`~agents.measure.learners.Learner`; it learns nothing.

    Args:
        loop: the part; its units count as steps.
    """

    warm_up_steps = 0
    replay_bytes_per_transition = None
    steady_rate = None

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self.least_steps = _REPEATS * loop.units

    def learn(self, steps: int) -> int:
        """Does the work for ``steps`` units, rounded up to whole pieces; units really done."""
        return self._loop.repeat(-(-steps // self._loop.units))

    def close(self) -> None:
        """Ends what the work needed."""
        self._loop.close()


def emulators_alone(config: TrainConfig) -> StageLearner:
    """ale-py's own vector of environments, with random actions; units are environment steps."""
    return StageLearner(emulator_stage(config, min(config.num_threads, config.num_envs)))


def environments_alone(config: TrainConfig) -> StageLearner:
    """The same games through our environments, as an agent meets them."""
    return StageLearner(environment_stage(config))


def update_alone(config: TrainConfig) -> StageLearner:
    """Learning from minibatches that lie on the device, on a GPU as a graph; units are samples."""
    with closing(make_train_env(config)) as venv:
        assert isinstance(venv.observation_space, spaces.Box)
        assert isinstance(venv.action_space, spaces.Discrete)
        shape, actions = venv.observation_space.shape, int(venv.action_space.n)
    variant = Variant(_arithmetic(config), config.num_threads, graph=config.device != "cpu")
    return StageLearner(update_stage(config, shape, actions, variant))


class SupervisedLearner:
    """A CIFAR ResNet-20 that learns from made images; steps are images.

    The project's own trainer with the recipe of He et al. 2016, augmentation included. Evaluations
    and checkpoints are left out.

    Args:
        config: where to compute, how and with how many threads.
        images: how many to make, of 3x32x32 random pixels.
        batch_size: images in a minibatch.
    """

    warm_up_steps = 0
    replay_bytes_per_transition = None
    steady_rate = None

    def __init__(self, config: TrainConfig, images: int, batch_size: int) -> None:
        recipe = replace(
            recipe_config("resnet-cifar-2016"),
            device=config.device,
            precision=_arithmetic(config),
            num_threads=config.num_threads,
            batch_size=batch_size,
            # So many that the learning rate never comes to its end.
            epochs=10**6,
        )
        setting = PretrainingSetup(recipe, Split(_made_images(images), _made_images(batch_size)))
        self._trainer = setting.make_trainer(setting.make_encoder(recipe.seed))
        self._updates: Iterator[int] = iter(())
        self.least_steps = images

    def learn(self, steps: int) -> int:
        """Learns from ``steps`` images, rounded up to whole minibatches; images really seen."""
        seen = 0
        while seen < steps:
            update = next(self._updates, None)
            if update is None:
                self._updates = self._trainer.learn_epoch()
            else:
                seen += update
        return seen

    def close(self) -> None:
        """Ends the epoch under way."""
        self._updates = iter(())


def _arithmetic(config: TrainConfig) -> Literal["fp32", "bf16"]:
    return "bf16" if config.precision == "bf16" else "fp32"


def _made_images(count: int) -> StoredImages:
    images = torch.randint(256, (count, 3, 32, 32), dtype=torch.uint8)
    labels = torch.arange(count) % len(_CLASSES)
    return StoredImages(images, labels, [Task("class", _CLASSES)])
