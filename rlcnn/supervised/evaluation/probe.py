"""Probes: linear classifiers on the features of a frozen encoder, compared with random encoders.

The classifiers are scikit-learn's: exact fits that choose their regularisation.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from envs.errors import UserError
from rlcnn.accelerate.devices import prepare_device
from rlcnn.accelerate.transfers import read_late, upload
from rlcnn.data.crops import CropTransform
from rlcnn.data.images import (
    MAX_BYTES_IN_MEMORY,
    Episodes,
    LabelledImages,
    Split,
    StoredImages,
    Task,
    draw_indices,
)
from rlcnn.encoders import Encoder, create_encoder, encoder_options
from rlcnn.encoders.layers import RandomProjection
from rlcnn.supervised.evaluation.gains import Gain, mean_gain
from rlcnn.supervised.evaluation.metrics import accuracy_interval
from rlcnn.supervised.evaluation.options import Method
from rlcnn.weights.load import load_into, read_spec
from rlcnn.weights.report import LoadReport

Features = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

# Values of C to choose from, and the share of the training images that chooses.
_CHOICES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
_VALIDATION_SHARE = 0.2


@dataclass(frozen=True)
class Fit:
    """A linear classifier on features, and its results on test images.

    Attributes:
        correct: bool (test images,).
        c: the chosen regularisation (scikit-learn's C: smaller is stronger).
        converged: whether the final fit reached its tolerance.
        episodes: which test images depend on each other; None where none do.
    """

    correct: npt.NDArray[np.bool_]
    c: float
    converged: bool
    episodes: Episodes | None = None

    @property
    def accuracy(self) -> float:
        """Share of correct test images."""
        return float(self.correct.mean())

    @property
    def interval(self) -> tuple[float, float]:
        """Its 95% interval, over images or episodes."""
        return accuracy_interval(torch.from_numpy(self.correct), self.episodes)

    def to_json(self) -> dict[str, Any]:
        """The results as JSON values."""
        return {
            "accuracy": self.accuracy,
            "interval": list(self.interval),
            "c": self.c,
            "converged": self.converged,
        }


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
    """Fits a linear classifier on standardised features (images, features) and tests it.

    "svm" is linear, one class against the rest, with squared hinge loss; "linear" is logistic
    regression over all classes. Both have an L2 penalty. A fifth of the training images, drawn by
    ``seed``, chooses C, the smallest of equally good ones; the final fit uses all of them. Each
    class has at least two training images.

    Raises:
        UserError: the features are not finite.
    """
    from sklearn.model_selection import train_test_split

    for part in (train, test):
        if not np.isfinite(part).all():
            raise UserError("the encoder's features are not all finite: nothing can be fitted")
    counts = np.unique(train_labels, return_counts=True)[1]
    rows, others = train_test_split(
        np.arange(len(train)),
        test_size=max(len(counts), round(_VALIDATION_SHARE * len(train))),
        random_state=seed,
        stratify=train_labels,
    )
    tried = _predictions(method, _CHOICES, train[rows], train_labels[rows], train[others])
    accuracies = [(predicted == train_labels[others]).mean() for predicted, _ in tried]
    # argmax takes the first of equal ones.
    best = _CHOICES[int(np.argmax(accuracies))]
    [(predicted, converged)] = _predictions(method, (best,), train, train_labels, test)
    return Fit(predicted == test_labels, best, converged, episodes)


def _predictions(
    method: Method, cs: Sequence[float], train: Features, labels: Labels, test: Features
) -> list[tuple[Labels, bool]]:
    """For each C, the predicted classes, and whether the fit reached its tolerance."""
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
    predictions: list[tuple[Labels, bool]] = []
    for c in cs:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            model.set_params(C=c).fit(train, labels)
        converged = not any(issubclass(w.category, ConvergenceWarning) for w in caught)
        predictions.append((model.predict(test), converged))
    return predictions


@dataclass(frozen=True)
class Comparison:
    """Fits of one method on the features of an encoder, and of random encoders by seed.

    ``own`` is None if the encoder is itself random.
    """

    own: Fit | None
    random: Mapping[int, Fit]

    @property
    def gain(self) -> Gain | None:
        """Over the mean accuracy of the random encoders; the interval does not cover their seeds.

        With too few episodes the interval is -1 to 1.
        """
        if self.own is None or not self.random:
            return None
        random = np.mean([fit.correct for fit in self.random.values()], axis=0)
        gain = mean_gain((self.own.correct - random)[:, None], self.own.episodes)
        return replace(gain, interval=gain.interval or (-1.0, 1.0))

    def to_json(self) -> dict[str, Any]:
        """The results as JSON values."""
        gain = self.gain.to_json() if self.gain else {"gain": None, "interval": None}
        return {
            "own": self.own.to_json() if self.own else None,
            "random": [{"seed": seed, **fit.to_json()} for seed, fit in self.random.items()],
            "gain": gain["gain"],
            "gain_interval": gain["interval"],
        }


class ChosenImages(LabelledImages):
    """Some images of a set, with one of its tasks.

    Attributes:
        indices: int64 (images,), their indices in the set.
    """

    def __init__(
        self,
        source: LabelledImages,
        indices: torch.Tensor,
        task: Task,
        crop: CropTransform | None = None,
    ) -> None:
        """Chooses by ``indices``; with ``crop``, images are their centre crops."""
        labels = source.labels[indices, source.tasks.index(task)]
        sides = (crop.height, crop.width) if crop else source.image_shape and source.image_shape[1:]
        super().__init__(labels, [task], source.channels, sides)
        self.episodes = source.episodes and source.episodes.at(indices)
        self.indices = indices
        self._source = source
        self._crop = crop

    def __getitem__(self, index: int) -> torch.Tensor:
        image = self._source[int(self.indices[index])]
        return image if self._crop is None else self._crop.centre(image)[0]

    def name(self, index: int) -> str:
        return self._source.name(int(self.indices[index]))

    def gather(self, indices: torch.Tensor) -> torch.Tensor:
        if self._crop is None:
            return self._source.gather(self.indices[indices])
        return super().gather(indices)


def choose_images(
    split: Split,
    task: Task,
    *,
    train_size: int | None = None,
    test_size: int | None = None,
    size: int | None = None,
    seed: int,
) -> Split:
    """Draws images with a known class to fit on and to test on, as :class:`ChosenImages`.

    Without ``train_size`` and ``test_size``, all of them are taken.

    Raises:
        UserError: there are not enough images or classes.
    """
    random = np.random.default_rng(seed)
    chosen = []
    for name, part, count in zip(split._fields, split, (train_size, test_size), strict=True):
        drawn = draw_indices(part.labels[:, split.train.tasks.index(task)], count, random, name)
        if not len(drawn):
            raise UserError(f'no {name} image has a known label for "{task.name}"')
        crop = CropTransform(size, size) if size else None
        chosen.append(ChosenImages(part, drawn, task, crop))
    counts = chosen[0].labels.unique(return_counts=True)[1]
    if len(counts) < 2:
        raise UserError(
            f"all {len(chosen[0])} images to train with are of one class: expected at least two"
        )
    if counts.min() < 2:
        raise UserError(
            "a class has only one image to train with, so none to choose the regularisation:"
            " increase --train-size"
        )
    return Split(*chosen)


def read_once(images: Split) -> Split:
    """Images of one size in memory, so that they are decoded and cropped once for all encoders.

    Returns the same images if they take more than ``MAX_BYTES_IN_MEMORY``.

    Raises:
        UserError: a file cannot be read as an image.
    """
    shapes = [part[0].shape for part in images]
    total = sum(len(part) * math.prod(shape) for part, shape in zip(images, shapes, strict=True))
    if total > MAX_BYTES_IN_MEMORY:
        return images
    parts = []
    for part, shape in zip(images, shapes, strict=True):
        pixels = torch.empty((len(part), *shape), dtype=torch.uint8)
        for index in range(len(part)):
            pixels[index] = part[index]
        parts.append(StoredImages(pixels, part.labels, part.tasks))
        parts[-1].episodes = part.episodes
    return Split(*parts)


def build_encoder(
    name: str, shape: Sequence[int], options: Mapping[str, Any], weights: str
) -> tuple[Encoder, LoadReport | None]:
    """Builds an encoder to probe, initialised by torch's generator at seed 0.

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
    torch.manual_seed(0)
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
    *,
    device: str = "cpu",
    batch_size: int = 128,
    max_features: int | None = None,
    on_images: Callable[[int], object] = lambda count: None,
) -> Features:
    """Features of images of one size, float32 (images, features), in evaluation mode.

    The encoder is moved to ``device``. Feature vectors longer than ``max_features`` are projected
    to this length by a fixed random matrix, the same for encoders of one architecture.
    ``on_images`` gets the number of images just encoded.
    """
    target = torch.device(device)
    prepare_device(target, "fp32")
    encoder.to(target).eval()
    projection: torch.nn.Module = torch.nn.Identity()
    if max_features is not None and encoder.features_dim > max_features:
        projection = RandomProjection(encoder.features_dim, max_features, seed=0).to(target)
    parts = torch.arange(len(images)).split(batch_size)
    encoded: list[torch.Tensor] = []
    with torch.inference_mode():
        results = (
            projection(encoder(upload(images.gather(part), target)).float()) for part in parts
        )
        for part, result in zip(parts, read_late(results, target), strict=True):
            encoded.append(result)
            on_images(len(part))
    features: Features = torch.cat(encoded).numpy()
    return features
