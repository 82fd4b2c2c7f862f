"""What frozen features are worth: a linear SVM and a linear probe, beside a random encoder's."""

from __future__ import annotations

import math
import operator
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from envs.errors import UserError
from rlcnn.accelerate.devices import prepare_device
from rlcnn.accelerate.transfers import read_late, upload
from rlcnn.data.images import UNKNOWN, Episodes, LabelledImages, StoredImages
from rlcnn.encoders import Encoder, create_encoder, encoder_options
from rlcnn.encoders.layers import RandomProjection
from rlcnn.stats.accuracy import clustered_gain_interval, paired_interval
from rlcnn.supervised.evaluation.metrics import accuracy_interval
from rlcnn.weights.load import load_into, read_spec
from rlcnn.weights.report import LoadReport

Method = Literal["svm", "linear"]
METHODS: tuple[Method, ...] = ("svm", "linear")

# Regularisation is chosen among these.
_CHOICES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)

# Share of the training images on which that is chosen.
_HELD_OUT = 0.2

# Up to so many bytes, images that several encoders see are held in memory.
_HOLD_IN_MEMORY = 2 * 10**9

Features = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Fit:
    """A linear classifier on features, and how it did on test images.

    Attributes:
        correct: bool (test images,).
        c: the regularisation that was chosen (scikit-learn's C: less is more of it).
        converged: whether the final fit reached its tolerance.
        episodes: which test images depend on each other; None where none do.
    """

    correct: npt.NDArray[np.bool_]
    c: float
    converged: bool
    episodes: Episodes | None = None

    @property
    def accuracy(self) -> float:
        """Share of the test images that are right."""
        return float(self.correct.mean())

    @property
    def interval(self) -> tuple[float, float]:
        """Its :func:`~rlcnn.supervised.evaluation.metrics.accuracy_interval`."""
        return accuracy_interval(torch.from_numpy(self.correct), self.episodes)

    def to_json(self) -> dict[str, Any]:
        """The figures as JSON values."""
        return {
            "accuracy": self.accuracy,
            "interval": list(self.interval),
            "c": self.c,
            "converged": self.converged,
        }


@dataclass(frozen=True)
class Comparison:
    """One method's fits on the encoder's features, and on those of random encoders.

    Attributes:
        own: on the features of the encoder; None where it is itself random.
        random: one for each seed.
    """

    own: Fit | None
    random: Mapping[int, Fit]

    @property
    def gain(self) -> float | None:
        """Accuracy over the mean of the random encoders'."""
        differences = self._differences()
        return None if differences is None else float(differences.mean())

    @property
    def gain_interval(self) -> tuple[float, float] | None:
        """Its 95% interval over test images, or the games played of which they are frames, paired.

        What other seeds would give is not in it.
        """
        differences = self._differences()
        if differences is None or self.own is None:
            return None
        episodes = self.own.episodes
        if episodes is None:
            return paired_interval(differences)
        found = clustered_gain_interval(differences[:, None], episodes.ids, episodes.games)
        return found or (-1.0, 1.0)

    def _differences(self) -> npt.NDArray[np.float64] | None:
        if self.own is None or not self.random:
            return None
        random = np.mean([fit.correct for fit in self.random.values()], axis=0)
        return self.own.correct.astype(np.float64) - random

    def to_json(self) -> dict[str, Any]:
        """The figures as JSON values."""
        return {
            "own": self.own.to_json() if self.own else None,
            "random": [{"seed": seed, **fit.to_json()} for seed, fit in self.random.items()],
            "gain": self.gain,
            "gain_interval": None if self.gain_interval is None else list(self.gain_interval),
        }


@dataclass(frozen=True)
class ProbeImages:
    """Labelled images to fit on and to test on, of one task.

    Attributes:
        train: with ``train_indices`` of them.
        test: likewise.
        task: what is asked.
    """

    train: LabelledImages
    test: LabelledImages
    train_indices: list[int]
    test_indices: list[int]
    task: str

    @property
    def column(self) -> int:
        """The place of the task among those of the images."""
        return [task.name for task in self.train.tasks].index(self.task)

    @property
    def episodes(self) -> Episodes | None:
        """Which test images depend on each other."""
        return self.test.episodes and self.test.episodes.at(self.test_indices)

    def labels(self, part: Literal["train", "test"]) -> Labels:
        """int64 (images,)."""
        images, indices = getattr(self, part), getattr(self, f"{part}_indices")
        labels: Labels = images.labels[indices, self.column].numpy()
        return labels

    def majority(self) -> float:
        """Accuracy on the test images of always telling the training images' commonest class."""
        commonest = np.bincount(self.labels("train")).argmax()
        return float((self.labels("test") == commonest).mean())


def choose_images(
    train: LabelledImages,
    test: LabelledImages,
    task: str,
    *,
    train_size: int | None,
    test_size: int | None,
    seed: int,
) -> ProbeImages:
    """Some of the images whose class is known, drawn by a seed.

    Args:
        train: to draw from.
        test: likewise; of the same tasks.
        task: its name.
        train_size: how many; None for all.
        test_size: likewise.
        seed: of the draw.

    Raises:
        UserError: there are not so many, or all that were drawn are of one class.
    """
    column = [one.name for one in train.tasks].index(task)
    random = np.random.default_rng(seed)
    chosen: list[list[int]] = []
    for name, part, size in (("train", train, train_size), ("test", test, test_size)):
        known = np.flatnonzero(part.labels[:, column].numpy() != UNKNOWN)
        if size is not None and not 1 <= size <= len(known):
            raise UserError(
                f"--{name}-size {size} must be at least 1 and at most {len(known)}, the images"
                f" of known class to {name} with"
            )
        if not len(known):
            raise UserError(f'no image to {name} with has a known label for "{task}"')
        drawn = known if size is None else np.sort(random.permutation(known)[:size])
        chosen.append(drawn.tolist())
    drawn_images = ProbeImages(train, test, chosen[0], chosen[1], task)
    counts = np.unique(drawn_images.labels("train"), return_counts=True)[1]
    if len(counts) < 2:
        raise UserError(
            f"all {len(chosen[0])} images to train with are of one class: there is nothing to tell"
            " it from"
        )
    if counts.min() < 2:
        raise UserError(
            "a class has one image only to train with, and none to choose the regularisation by:"
            " a greater --train-size has more"
        )
    return drawn_images


def read_once(
    images: ProbeImages, transform: Callable[[torch.Tensor], torch.Tensor] | None = None
) -> ProbeImages | None:
    """The chosen images as every encoder is to see them, so that no file is decoded for each anew.

    Args:
        images: chosen of image files, or of what is held in memory.
        transform: as for :func:`encode`.

    Returns:
        Those alone, held in memory; None where they would take more than 2 GB of it.

    Raises:
        UserError: a file cannot be read as an image.
    """
    chosen = ((images.train, images.train_indices), (images.test, images.test_indices))
    see = transform or (lambda image: image)
    shapes = [see(part[indices[0]]).shape for part, indices in chosen]
    counts = [len(indices) for _, indices in chosen]
    if sum(map(operator.mul, counts, map(math.prod, shapes))) > _HOLD_IN_MEMORY:
        return None
    parts = []
    for (part, indices), shape in zip(chosen, shapes, strict=True):
        pixels = torch.empty((len(indices), *shape), dtype=torch.uint8)
        for place, index in enumerate(indices):
            pixels[place] = see(part[index])
        held = StoredImages(pixels, part.labels[indices], part.tasks)
        held.episodes = part.episodes and part.episodes.at(indices)
        parts.append(held)
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
    """An encoder as it is probed.

    The features of a network for RGB images are what it makes of each frame: a projection that was
    not trained would only blur them. One that stands in a weights file comes along.

    Args:
        name: see :func:`rlcnn.encoders.create_encoder`.
        shape: (channels, height, width) of the images.
        options: of the encoder; those of the weights file count where they say nothing.
        weights: "none", "imagenet", a file or the directory of a run.
        seed: of torch's generator, from which the encoder is initialised.

    Raises:
        UserError: as ``create_encoder`` and :func:`rlcnn.weights.load_into`.
    """
    chosen = dict(options)
    if "projection" in encoder_options(name):
        chosen.setdefault("projection", "none")
    if weights not in ("none", "imagenet"):
        spec = read_spec(weights)
        # The node is part of a saved name; what is asked for may leave it out.
        if spec and name in (spec["name"], spec["name"].rpartition(":")[0]):
            name, chosen = spec["name"], {**spec["options"], **options}
            if spec["observation_shape"][0] != shape[0] and "frame_channels" in chosen:
                # It said what a frame was among other channels.
                chosen["frame_channels"] = options.get("frame_channels")
    torch.manual_seed(seed)
    encoder = create_encoder(name, shape, **chosen)
    report = None if weights == "none" else load_into(encoder, weights)
    return encoder, report


def random_like(encoder: Encoder, seed: int) -> Encoder:
    """A fresh encoder of the same architecture, initialised from torch's generator at ``seed``."""
    torch.manual_seed(seed)
    return create_encoder(encoder.name, encoder.observation_shape, **encoder.options)


def encode(
    encoder: Encoder,
    images: LabelledImages,
    indices: Sequence[int],
    *,
    transform: Callable[[torch.Tensor], torch.Tensor] | None = None,
    device: str = "cpu",
    batch_size: int = 128,
    max_features: int | None = None,
    on_images: Callable[[int], object] = lambda count: None,
) -> Features:
    """Features of images, in evaluation mode.

    Args:
        encoder: is moved to ``device``.
        images: to encode.
        indices: of those to encode, in this order.
        transform: image -> what the encoder takes, uint8 (channels, height, width); by default
            it takes images as they are.
        device: to compute on.
        batch_size: images at a time.
        max_features: longer vectors are projected to so many dimensions by a fixed random matrix,
            the same for encoders of one architecture.
        on_images: called with the number of images just encoded.

    Returns:
        float32 (images, features).
    """
    target = torch.device(device)
    prepare_device(target, "fp32")
    encoder.to(target).eval()
    capped = max_features is not None and encoder.features_dim > max_features
    projection = (
        RandomProjection(encoder.features_dim, max_features or 0, seed=0).to(target)
        if capped
        else torch.nn.Identity()
    )
    parts = [indices[start : start + batch_size] for start in range(0, len(indices), batch_size)]

    def encoded(some: Sequence[int]) -> torch.Tensor:
        batch = (
            torch.stack([transform(images[index]) for index in some])
            if transform
            else images.gather(torch.tensor(some))
        )
        found: torch.Tensor = projection(encoder(upload(batch, target)).float())
        return found

    found: list[torch.Tensor] = []
    with torch.inference_mode():
        for some, part in zip(parts, read_late(map(encoded, parts), target), strict=True):
            found.append(part)
            on_images(len(some))
    features: Features = torch.cat(found).numpy()
    return features


def fit(
    method: Method,
    train: Features,
    train_labels: Labels,
    test: Features,
    test_labels: Labels,
    *,
    seed: int = 0,
    episodes: Episodes | None = None,
) -> Fit:
    """Fits a linear classifier on standardised features and tests it.

    Args:
        method: "svm": linear, one class against the rest, squared hinge loss; "linear": logistic
            regression over all classes. Both with an L2 penalty, whose C is that which does best on
            a fifth of the training images; of equal ones the least. The final fit is on all.
        train: (images, features).
        train_labels: (images,), each class at least twice.
        test: likewise.
        test_labels: likewise.
        seed: of the choice of that fifth.
        episodes: which test images depend on each other.

    Raises:
        UserError: the features are not finite.
    """
    from sklearn.model_selection import train_test_split

    for part in (train, test):
        if not np.isfinite(part).all():
            raise UserError("the encoder's features are not all finite numbers: nothing fits them")
    counts = np.unique(train_labels, return_counts=True)[1]
    held_out = max(len(counts), round(_HELD_OUT * len(train)))
    own, other = train_test_split(
        np.arange(len(train)), test_size=held_out, random_state=seed, stratify=train_labels
    )
    tried = _answers(method, _CHOICES, train[own], train_labels[own], train[other])
    accuracies = [(predicted == train_labels[other]).mean() for predicted, _ in tried]
    # argmax takes the first of equal ones.
    best = _CHOICES[int(np.argmax(accuracies))]
    [(predicted, converged)] = _answers(method, (best,), train, train_labels, test)
    return Fit(predicted == test_labels, best, converged, episodes)


def _answers(
    method: Method, cs: Sequence[float], train: Features, labels: Labels, test: Features
) -> list[tuple[Labels, bool]]:
    """For each C, the classes of the test images, and whether the fit reached its tolerance."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    scaler = StandardScaler().fit(train)
    train, test = scaler.transform(train), scaler.transform(test)
    model: Any
    if method == "svm":
        model = LinearSVC(dual="auto", random_state=0)
    else:
        # Each fit starts from the one before, which had a stronger penalty.
        model = LogisticRegression(max_iter=200, warm_start=True)
    answers: list[tuple[Labels, bool]] = []
    for c in cs:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            model.set_params(C=c).fit(train, labels)
        converged = not any(issubclass(w.category, ConvergenceWarning) for w in caught)
        answers.append((model.predict(test), converged))
    return answers
