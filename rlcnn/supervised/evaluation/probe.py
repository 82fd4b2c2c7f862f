"""Probes: linear classifiers on the features of a frozen encoder, compared with random encoders."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from envs.errors import UserError
from rlcnn.accelerate.devices import prepare_device
from rlcnn.accelerate.transfers import read_late, upload
from rlcnn.data.images import MAX_BYTES_IN_MEMORY, UNKNOWN, Episodes, LabelledImages, StoredImages
from rlcnn.encoders import Encoder, create_encoder, encoder_options
from rlcnn.encoders.layers import RandomProjection
from rlcnn.supervised.evaluation.baselines import majority
from rlcnn.supervised.evaluation.gains import Interval, gain_interval
from rlcnn.supervised.evaluation.linear import Features, Fit, Labels
from rlcnn.weights.load import load_into, read_spec
from rlcnn.weights.report import LoadReport

Transform = Callable[[torch.Tensor], torch.Tensor]
"""An image, uint8 (channels, h, w) -> an encoder's input, uint8 (channels, height, width)."""


@dataclass(frozen=True)
class Comparison:
    """Fits of one method on the features of an encoder, and of random encoders.

    Attributes:
        own: the fit of the encoder; None if it is itself random.
        random: the fits of random encoders by seed.
    """

    own: Fit | None
    random: Mapping[int, Fit]

    @property
    def gain(self) -> float | None:
        """Accuracy minus the mean accuracy of the random encoders."""
        differences = self._differences()
        return None if differences is None else float(differences.mean())

    @property
    def gain_interval(self) -> Interval | None:
        """95% interval of the gain over test images, or episodes of games; not over other seeds."""
        differences = self._differences()
        if differences is None or self.own is None:
            return None
        return gain_interval(differences[:, None], self.own.episodes) or (-1.0, 1.0)

    def _differences(self) -> npt.NDArray[np.float64] | None:
        if self.own is None or not self.random:
            return None
        random = np.mean([fit.correct for fit in self.random.values()], axis=0)
        return self.own.correct.astype(np.float64) - random

    def to_json(self) -> dict[str, Any]:
        """The results as JSON values."""
        return {
            "own": self.own.to_json() if self.own else None,
            "random": [{"seed": seed, **fit.to_json()} for seed, fit in self.random.items()],
            "gain": self.gain,
            "gain_interval": None if self.gain_interval is None else list(self.gain_interval),
        }


@dataclass(frozen=True)
class ProbeImages:
    """Labelled images of one task to fit on and to test on.

    Attributes:
        train: images to fit on, those at ``train_indices``.
        test: images to test on, those at ``test_indices``.
        train_indices: indices of ``train``.
        test_indices: indices of ``test``.
        task: name of the task.
    """

    train: LabelledImages
    test: LabelledImages
    train_indices: list[int]
    test_indices: list[int]
    task: str

    @property
    def episodes(self) -> Episodes | None:
        """Which test images depend on each other."""
        return self.test.episodes and self.test.episodes.at(self.test_indices)

    def labels(self, part: Literal["train", "test"]) -> Labels:
        """int64 (images,)."""
        images, indices = getattr(self, part), getattr(self, f"{part}_indices")
        labels: Labels = images.labels[indices, _column(self.train, self.task)].numpy()
        return labels

    def majority(self) -> float:
        """Accuracy of the training images' most frequent class."""
        train, test = (torch.from_numpy(self.labels(part))[:, None] for part in ("train", "test"))
        task = self.train.tasks[_column(self.train, self.task)]
        return majority(train, test, [task]).figures["test/top1"]


def _column(images: LabelledImages, task: str) -> int:
    return [one.name for one in images.tasks].index(task)


def choose_images(
    train: LabelledImages,
    test: LabelledImages,
    task: str,
    *,
    train_size: int | None,
    test_size: int | None,
    seed: int,
) -> ProbeImages:
    """Draws images with a known class to fit on and to test on; no size takes all of them.

    Raises:
        UserError: there are not enough images or classes.
    """
    random = np.random.default_rng(seed)
    chosen: list[list[int]] = []
    for name, part, size in (("train", train, train_size), ("test", test, test_size)):
        known = np.flatnonzero(part.labels[:, _column(train, task)].numpy() != UNKNOWN)
        if size is not None and not 1 <= size <= len(known):
            raise UserError(
                f"--{name}-size {size} must be at least 1 and at most {len(known)}, the number of"
                f" {name} images with a known class"
            )
        if not len(known):
            raise UserError(f'no {name} image has a known label for "{task}"')
        drawn = known if size is None else np.sort(random.permutation(known)[:size])
        chosen.append(drawn.tolist())
    images = ProbeImages(train, test, chosen[0], chosen[1], task)
    counts = np.unique(images.labels("train"), return_counts=True)[1]
    if len(counts) < 2:
        raise UserError(
            f"all {len(chosen[0])} images to train with are of one class: expected at least two"
        )
    if counts.min() < 2:
        raise UserError(
            "a class has only one image to train with, so none to choose the regularisation:"
            " increase --train-size"
        )
    return images


def read_once(images: ProbeImages, transform: Transform | None = None) -> ProbeImages | None:
    """Decodes and transforms the images once for all encoders.

    Returns:
        The images in memory; None if they take more than ``MAX_BYTES_IN_MEMORY``.

    Raises:
        UserError: a file cannot be read as an image.
    """
    chosen = ((images.train, images.train_indices), (images.test, images.test_indices))
    transform = transform or (lambda image: image)
    shapes = [transform(part[indices[0]]).shape for part, indices in chosen]
    counts = [len(indices) for _, indices in chosen]
    total = sum(n * math.prod(shape) for n, shape in zip(counts, shapes, strict=True))
    if total > MAX_BYTES_IN_MEMORY:
        return None
    parts = []
    for (part, indices), shape in zip(chosen, shapes, strict=True):
        pixels = torch.empty((len(indices), *shape), dtype=torch.uint8)
        for row, index in enumerate(indices):
            pixels[row] = transform(part[index])
        stored = StoredImages(pixels, part.labels[indices], part.tasks)
        stored.episodes = part.episodes and part.episodes.at(indices)
        parts.append(stored)
    train, test = parts
    rows = [list(range(count)) for count in counts]
    return ProbeImages(train, test, rows[0], rows[1], images.task)


def build_encoder(
    name: str,
    shape: Sequence[int],
    options: Mapping[str, Any],
    weights: str,
    *,
    seed: int = 0,
) -> tuple[Encoder, LoadReport | None]:
    """Builds an encoder to probe, initialised by torch's generator at ``seed``.

    A network for RGB images has no projection by default, since an untrained one would only mix the
    features of its frames. A projection in a weights file is kept. ``options`` override those in
    the weights file. ``weights`` are "none", "imagenet", a file or the directory of a run.

    Raises:
        UserError: as ``create_encoder`` and :func:`rlcnn.weights.load_into`.
    """
    chosen = dict(options)
    if "projection" in encoder_options(name):
        chosen.setdefault("projection", "none")
    if weights not in ("none", "imagenet"):
        spec = read_spec(weights)
        # A saved name contains the node, which ``name`` may leave out.
        if spec and name in (spec["name"], spec["name"].rpartition(":")[0]):
            name, chosen = spec["name"], {**spec["options"], **options}
            if spec["observation_shape"][0] != shape[0] and "frame_channels" in chosen:
                # The saved value belongs to observations with other channels.
                chosen["frame_channels"] = options.get("frame_channels")
    torch.manual_seed(seed)
    encoder = create_encoder(name, shape, **chosen)
    report = None if weights == "none" else load_into(encoder, weights)
    return encoder, report


def random_like(encoder: Encoder, seed: int) -> Encoder:
    """A new encoder of the same architecture, initialised by torch's generator at ``seed``."""
    torch.manual_seed(seed)
    return create_encoder(encoder.name, encoder.observation_shape, **encoder.options)


def encode(
    encoder: Encoder,
    images: LabelledImages,
    indices: Sequence[int],
    *,
    transform: Transform | None = None,
    device: str = "cpu",
    batch_size: int = 128,
    max_features: int | None = None,
    on_images: Callable[[int], object] = lambda count: None,
) -> Features:
    """Features of the images at ``indices``, float32 (images, features), in evaluation mode.

    The encoder is moved to ``device``. ``transform`` converts images to its input. Feature vectors
    longer than ``max_features`` are projected to this length by a fixed random matrix, the same for
    encoders of one architecture. ``on_images`` gets the number of images just encoded.
    """
    target = torch.device(device)
    prepare_device(target, "fp32")
    encoder.to(target).eval()
    projection: torch.nn.Module = torch.nn.Identity()
    if max_features is not None and encoder.features_dim > max_features:
        projection = RandomProjection(encoder.features_dim, max_features, seed=0).to(target)
    parts = [indices[start : start + batch_size] for start in range(0, len(indices), batch_size)]

    def encode_part(part: Sequence[int]) -> torch.Tensor:
        if transform is None:
            batch = images.gather(torch.tensor(part))
        else:
            batch = torch.stack([transform(images[index]) for index in part])
        encoded: torch.Tensor = projection(encoder(upload(batch, target)).float())
        return encoded

    encoded: list[torch.Tensor] = []
    with torch.inference_mode():
        for part, result in zip(parts, read_late(map(encode_part, parts), target), strict=True):
            encoded.append(result)
            on_images(len(part))
    features: Features = torch.cat(encoded).numpy()
    return features
