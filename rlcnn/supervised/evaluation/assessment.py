"""Evaluates classifiers on labelled images, with several crops and as an ensemble."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from envs.errors import UserError, nearest
from rlcnn.accelerate.devices import prepare_device
from rlcnn.accelerate.transfers import read_late, upload
from rlcnn.data.images import UNKNOWN, Episodes, LabelledImages, Task
from rlcnn.supervised.evaluation.metrics import Evaluation
from rlcnn.supervised.evaluation.networks import Network

# Names of ImageNet's folders; they have the order of its classes.
_WORDNET = re.compile(r"n\d{8}")


@dataclass(frozen=True)
class Assessment:
    """Results of several classifiers, as an ensemble and one by one.

    The ensemble takes the mean of the probabilities. ``indices`` are those of the evaluated images,
    whose class is known.
    """

    together: Evaluation
    members: Sequence[Evaluation]
    indices: list[int]
    task: str
    crops: int

    def to_json(self) -> dict[str, Any]:
        """As JSON values; with ``members`` if there are several."""
        document = {"task": self.task, "crops": self.crops, **self.together.to_json()}
        if len(self.members) > 1:
            document["members"] = [member.figures() for member in self.members]
        return document


def assess(
    networks: Sequence[Network],
    images: LabelledImages,
    *,
    crops: int = 1,
    task: str | None = None,
    batch_size: int = 64,
    device: str = "cpu",
    on_images: Callable[[int], object] = lambda count: None,
) -> Assessment:
    """Evaluates one network, or several with the same classes as an ensemble.

    Args:
        networks: the networks, on ``device``.
        images: images whose classes are among those of the networks.
        crops: 1 or 10 crops of each image. Probabilities are averaged over crops, then networks.
        task: name of the task; needed if the images have several.
        batch_size: crops in a minibatch, at least those of one image.
        device: device of the networks.
        on_images: called with the number of images just evaluated.

    Raises:
        UserError: the images have other channels or classes than a network, the networks differ in
            their classes, an image cannot be read, or no label is known.
    """
    chosen = chosen_task(images, task)
    classes = shared_classes(networks, images, chosen)
    own = torch.tensor(class_indices(chosen, classes, networks[0].source))
    prediction = predict(
        networks,
        images,
        chosen,
        crops=crops,
        batch_size=batch_size,
        device=device,
        on_images=on_images,
    )
    known = own[images.labels[prediction.indices, images.tasks.index(chosen)]]
    probabilities = prediction.probabilities
    together, *each = (
        Evaluation(classes, known, scores, prediction.episodes)
        for scores in (probabilities.mean(dim=0), *probabilities)
    )
    return Assessment(together, each, prediction.indices, chosen.name, crops)


def shared_classes(
    networks: Sequence[Network], images: LabelledImages, task: Task
) -> tuple[str, ...]:
    """The networks' classes for a task of the images.

    Raises:
        UserError: the networks differ in them, or lack the task; the images have other channels.
    """
    classes = networks[0].tasks[networks[0].task(task.name)].classes
    for network in networks:
        check_channels(images.channels, network)
        if network.tasks[network.task(task.name)].classes != classes:
            raise UserError(
                f'"{networks[0].source}" and "{network.source}" have different classes: they are'
                " not an ensemble"
            )
    return classes


class Prediction(NamedTuple):
    """Probabilities (networks, images, classes) for the images at ``indices``, on the CPU."""

    probabilities: torch.Tensor
    indices: list[int]
    episodes: Episodes | None
    crops: int


def predict(
    networks: Sequence[Network],
    images: LabelledImages,
    task: Task,
    *,
    crops: int = 1,
    batch_size: int = 64,
    device: str = "cpu",
    on_images: Callable[[int], object] = lambda count: None,
) -> Prediction:
    """Classifies all images whose label in a task is known, by each of some networks.

    Arguments are those of :func:`assess`; the networks have been checked by
    :func:`shared_classes`.

    Raises:
        UserError: an image cannot be read, or no label is known.
    """
    members = [(network, network.task(task.name)) for network in networks]
    labels = images.labels[:, images.tasks.index(task)]
    indices = (labels != UNKNOWN).nonzero()[:, 0].tolist()
    if not indices:
        raise UserError(f'no image has a known label for "{task.name}"')
    target = torch.device(device)
    prepare_device(target, "fp32")
    parts = torch.tensor(indices).split(max(1, batch_size // crops))

    def classify(part: torch.Tensor) -> torch.Tensor:
        """Probabilities (networks, images, classes), on the device."""
        batch = [images[index] for index in part.tolist()]
        probabilities = []
        for network, place in members:
            cropped = torch.cat([network.transform.crops(image, crops) for image in batch])
            every = network.probabilities(upload(cropped, target), place)
            probabilities.append(every.unflatten(0, (len(batch), crops)).mean(dim=1))
        return torch.stack(probabilities)

    found: list[torch.Tensor] = []
    for part, result in zip(parts, read_late(map(classify, parts), target), strict=True):
        found.append(result)
        on_images(len(part))
    episodes = images.episodes and images.episodes.at(indices)
    return Prediction(torch.cat(found, dim=1), indices, episodes, crops)


def chosen_task(images: LabelledImages, name: str | None) -> Task:
    """The task of this name, or the only one.

    Raises:
        UserError: no task has this name, or there are several tasks and no name.
    """
    tasks = {task.name: task for task in images.tasks}
    if name is None and len(tasks) == 1:
        return images.tasks[0]
    if name is None:
        raise UserError(f"the images have several tasks: give --task {' or '.join(tasks)}")
    if name not in tasks:
        raise UserError(
            f'--task "{name}" is unknown: the images have {", ".join(tasks)}.{nearest(name, tasks)}'
        )
    return tasks[name]


def check_channels(channels: int, network: Network) -> None:
    """Refuses images with another number of channels than a network takes, by a UserError."""
    if channels == network.channels:
        return
    kinds = {1: "1 channel (grey)", 3: "3 channels (RGB)"}
    given, taken = (kinds.get(n, f"{n} channels") for n in (channels, network.channels))
    remedy = f": --channels {network.channels} converts them" if network.channels in kinds else ""
    raise UserError(f'the images have {given}, but "{network.source}" takes {taken}{remedy}')


def class_indices(task: Task, classes: Sequence[str], source: str) -> list[int]:
    """Indices in a network's classes of the classes of images.

    Classes are matched by name. A name may also be the index of a class, unless the network's
    classes are numbers. If there are as many names as classes, they may be ImageNet's WordNet
    numbers, which have the order of its classes.

    Raises:
        UserError: the network does not know a class; the message names the nearest, and ``source``.
    """
    places = {name: index for index, name in enumerate(classes)}
    if places.keys() >= {*task.classes}:
        return [places[name] for name in task.classes]
    # Where classes are numbers, such as values of RAM, a number is not an index.
    numbered = any(name.isdecimal() for name in classes)
    if not numbered and all(name.isdecimal() and int(name) < len(classes) for name in task.classes):
        return [int(name) for name in task.classes]
    if len(task.classes) == len(classes) and all(map(_WORDNET.fullmatch, task.classes)):
        return list(range(len(classes)))
    strange = next(name for name in task.classes if name not in places)
    raise UserError(
        f'"{source}" knows no class "{strange}": it has {len(classes)}, such as'
        f' "{classes[0]}".{nearest(strange, classes)} For images in other folders, --labels takes a'
        " CSV with class indices"
    )
