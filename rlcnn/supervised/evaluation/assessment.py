"""Classifiers judged on labelled images: crops, ensembles, and the data's classes in theirs."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from envs.errors import UserError, nearest
from rlcnn.accelerate.devices import prepare_device
from rlcnn.accelerate.transfers import read_late, upload
from rlcnn.data.images import UNKNOWN, LabelledImages, Task
from rlcnn.supervised.evaluation.metrics import Evaluation, mean_probabilities
from rlcnn.supervised.evaluation.networks import Network

# The names of ImageNet's folders, which sort as its classes do.
_WORDNET = re.compile(r"n\d{8}")


@dataclass(frozen=True)
class Assessment:
    """What classifiers made of images, together and each alone.

    Attributes:
        together: the mean of their probabilities.
        members: one for each network.
        indices: of the images that were judged, those whose class is known.
        task: what was asked.
        crops: that were taken of each image.
    """

    together: Evaluation
    members: list[Evaluation]
    indices: list[int]
    task: str
    crops: int

    def to_json(self) -> dict[str, Any]:
        """Figures and confusions as JSON values; ``members`` where there are several."""
        told = {"task": self.task, "crops": self.crops, **self.together.to_json()}
        if len(self.members) > 1:
            told["members"] = [member.figures() for member in self.members]
        return told


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
    """Judges one network, or several as an ensemble.

    Args:
        networks: of the same classes.
        images: whose classes are among those of the networks.
        crops: 1 or 10 of each image, over whose probabilities the mean is taken, as over networks.
        task: what to ask; needed where the images have answers to several.
        batch_size: crops that go through a network at once, at least one image's.
        device: that the networks are on.
        on_images: called with the number of images just judged.

    Raises:
        UserError: the images have other channels or classes than a network, the networks differ in
            their classes, an image cannot be read, or no label is known.
    """
    asked = chosen_task(images, task)
    column = [one.name for one in images.tasks].index(asked.name)
    places = [network.task(asked.name) for network in networks]
    classes = networks[0].tasks[places[0]].classes
    for network, place in zip(networks, places, strict=True):
        check_channels(images.channels, network)
        if network.tasks[place].classes != classes:
            raise UserError(
                f'"{networks[0].source}" and "{network.source}" tell different classes apart: they'
                " make no ensemble"
            )
    own = torch.tensor(class_indices(asked, classes, networks[0].source))
    labels = images.labels[:, column]
    indices = (labels != UNKNOWN).nonzero()[:, 0].tolist()
    if not indices:
        raise UserError(f'no image has a known label for "{asked.name}"')
    target = torch.device(device)
    prepare_device(target, "fp32")
    per_batch = max(1, batch_size // crops)
    parts = [indices[start : start + per_batch] for start in range(0, len(indices), per_batch)]

    def answers(part: list[int]) -> torch.Tensor:
        """Probabilities (networks, images, classes), on the device."""
        batch = [images[index] for index in part]
        found = []
        for network, place in zip(networks, places, strict=True):
            seen = torch.cat([network.transform.crops(image, crops) for image in batch])
            every = network.probabilities(upload(seen, target), place)
            found.append(every.unflatten(0, (len(batch), crops)).mean(dim=1))
        return torch.stack(found)

    found: list[torch.Tensor] = []
    for part, answered in zip(parts, read_late(map(answers, parts), target), strict=True):
        found.append(answered)
        on_images(len(part))
    known = own[labels[indices]]
    episodes = images.episodes and images.episodes.at(indices)
    members = [Evaluation(classes, known, each, episodes) for each in torch.cat(found, dim=1)]
    mean = mean_probabilities([member.probabilities for member in members])
    together = Evaluation(classes, known, mean, episodes)
    return Assessment(together, members, indices, asked.name, crops)


def chosen_task(images: LabelledImages, name: str | None) -> Task:
    """The task of that name, or the only one.

    Raises:
        UserError: there is none of that name, or there are several and none is named.
    """
    tasks = {task.name: task for task in images.tasks}
    if name is None and len(tasks) == 1:
        return images.tasks[0]
    if name is None:
        raise UserError(f"the images answer several questions: give --task {' or '.join(tasks)}")
    if name not in tasks:
        raise UserError(
            f'--task "{name}" is unknown: the images answer {", ".join(tasks)}.'
            f"{nearest(name, tasks)}"
        )
    return tasks[name]


def check_channels(channels: int, network: Network) -> None:
    """Refuses images of other channels than a network takes.

    Raises:
        UserError: they have others.
    """
    if channels == network.channels:
        return
    kinds = {1: "1 channel (grey)", 3: "3 channels (RGB)"}
    remedy = f": --channels {network.channels} converts them" if network.channels in kinds else ""
    raise UserError(
        f"the images have {kinds.get(channels, f'{channels} channels')}, but"
        f' "{network.source}" takes {kinds.get(network.channels, f"{network.channels} channels")}'
        f"{remedy}"
    )


def class_indices(task: Task, classes: Sequence[str], source: str) -> list[int]:
    """Where the classes of images stand among those of a network.

    They go by their names. Folders may also be named by the index of the class, unless classes of
    the network have numbers for names themselves; or, where they are as many as the classes, by
    ImageNet's WordNet numbers, in whose order its classes are.

    Args:
        task: of the images.
        classes: the network's.
        source: the network's, for messages.

    Raises:
        UserError: the network does not know a class; the nearest is named.
    """
    places = {name: index for index, name in enumerate(classes)}
    if all(name in places for name in task.classes):
        return [places[name] for name in task.classes]
    # Where classes are numbers themselves, such as values of RAM, one that the network does not
    # know is no index of another.
    numbered = any(name.isdecimal() for name in classes)
    if not numbered and all(name.isdecimal() and int(name) < len(classes) for name in task.classes):
        return [int(name) for name in task.classes]
    if len(task.classes) == len(classes) and all(map(_WORDNET.fullmatch, task.classes)):
        return list(range(len(classes)))
    strange = next(name for name in task.classes if name not in places)
    raise UserError(
        f'"{source}" knows no class "{strange}": it has {len(classes)}, such as'
        f' "{classes[0]}".{nearest(strange, classes)} For images in other folders or none, --labels'
        " takes a CSV with class indices"
    )
