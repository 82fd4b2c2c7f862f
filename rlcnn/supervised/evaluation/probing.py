"""A probe from its options to its result: an encoder's features beside those of random ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from envs.errors import UserError
from rlcnn.accelerate.devices import resolve_device
from rlcnn.data.atari.options import PolicyPlay
from rlcnn.data.by_name import check_held_out, load_data
from rlcnn.data.images import LabelledImages, Split
from rlcnn.data.names import ATARI
from rlcnn.encoders import Encoder, with_frame_channels
from rlcnn.encoders.base import size_option
from rlcnn.runs.progress import ProgressDisplay, waiting
from rlcnn.runs.provenance import provenance
from rlcnn.supervised.evaluation import probe
from rlcnn.supervised.evaluation.assessment import assess, chosen_task
from rlcnn.supervised.evaluation.baselines import majority
from rlcnn.supervised.evaluation.metrics import Evaluation, in_percent
from rlcnn.supervised.evaluation.networks import Network, load_network
from rlcnn.supervised.evaluation.options import Method, ProbeConfig
from rlcnn.supervised.evaluation.probe import ChosenImages, Comparison, Fit
from rlcnn.weights.load import read_about, weights_file
from rlcnn.weights.report import LoadReport

METHOD_NAMES = {"svm": "linear SVM", "linear": "logistic regression"}


@dataclass(frozen=True)
class ProbeResult:
    """The fits of each method on the features of an encoder and of random ones.

    ``report`` says what became of the encoder's weights; it is None without any. ``classifiers``
    are the results of trained networks on the same test images.
    """

    config: ProbeConfig
    encoder: Encoder
    report: LoadReport | None
    images: Split
    comparisons: dict[Method, Comparison]
    classifiers: dict[str, Evaluation]

    @property
    def majority(self) -> float:
        """Accuracy of the training images' most frequent class."""
        train, test = self.images
        return majority(train.labels, test.labels, train.tasks).figures["test/top1"]

    def to_json(self) -> dict[str, Any]:
        """Everything about the result as JSON values."""
        config = self.config
        return {
            "encoder": self.encoder.spec(),
            "weights": config.weights,
            "report": self.report.to_json() if self.report else None,
            "data": config.data,
            "task": self.images.train.tasks[0].name,
            "train": len(self.images.train),
            "test": len(self.images.test),
            "features": min(self.encoder.features_dim, config.max_features),
            "seed": config.seed,
            "majority": self.majority,
            "methods": {name: one.to_json() for name, one in self.comparisons.items()},
            "classifiers": {name: one.figures() for name, one in self.classifiers.items()},
            "provenance": provenance(),
        }

    def lines(self) -> list[str]:
        """The result as lines of text."""
        lines = [
            f"{self.encoder.name}, {self.encoder.features_dim:,} features;"
            f" {len(self.images.train):,} images to fit on,"
            f" {len(self.images.test):,} to test on",
            f"majority class: {100 * self.majority:.2f}%",
        ]
        for method, comparison in self.comparisons.items():
            fits = {self.config.weights: comparison.own} if comparison.own else {}
            fits |= {f"random encoder {seed}": one for seed, one in comparison.random.items()}
            for name, one in fits.items():
                accuracy = in_percent(one.accuracy, one.interval)
                lines.append(f"{METHOD_NAMES[method]}, {name}: {accuracy}, C {one.c:g}")
            if comparison.gain:
                lines.append(f"{METHOD_NAMES[method]}, over random: {comparison.gain}")
        return [*lines, *self._table()] if self.classifiers else lines

    def _table(self) -> list[str]:
        """Every accuracy beside those of the trained networks, as a table of Markdown."""
        found: dict[str, tuple[float, Sequence[float]]] = {}
        for method, comparison in self.comparisons.items():
            name = f"{METHOD_NAMES[method]} on frozen"
            for seed, one in comparison.random.items():
                found[f"{name} random encoder {seed}"] = (one.accuracy, one.interval)
            if own := comparison.own:
                found[f"{name} {self.config.weights}"] = (own.accuracy, own.interval)
        for name, evaluation in self.classifiers.items():
            figures: dict[str, Any] = evaluation.figures()
            found[name] = (figures["top1"], figures["top1_interval"])
        rows = [
            f"| {name} | {100 * accuracy:.2f}% | {100 * lower:.2f} to {100 * upper:.2f} |"
            for name, (accuracy, (lower, upper)) in found.items()
        ]
        majority = f"| majority class | {100 * self.majority:.2f}% | |"
        return ["", "| classifier | top-1 | 95% interval |", "|---|---:|---|", majority, *rows]


def run_probe(
    config: ProbeConfig, policies: Mapping[str, PolicyPlay], console: Console
) -> ProbeResult:
    """Fits and tests the linear classifiers of a valid configuration.

    ``policies`` are the agents that play games of atari: data, by game.

    Raises:
        UserError: for data, weights or an encoder that do not fit each other or do not exist, and
            for images that the weights learned from.
    """
    config = replace(config, device=resolve_device(config.device))
    networks = [load_network(path, device=config.device) for path in config.classifiers]
    for network in networks:
        check_held_out(config.data, config.seed, network.training, network.source)
    images, held_out = load_images(config, policies)
    encoder, report = build_probed(config, config.encoder, images)
    if report is not None:
        console.print(str(report))
    if encoder.features_dim > config.max_features:
        console.print(
            f"{encoder.features_dim:,} features are reduced to {config.max_features:,} by a random"
            " projection; --max-features keeps more, and an encoder's pooling makes fewer"
        )
    classifiers = _evaluate(networks, held_out, images.test, config, console)
    if config.size is not None:
        with console.status("reading the images"):
            images = probe.read_once(images)
    comparisons = compare_with_random(config, encoder, images, console)
    return ProbeResult(config, encoder, report, images, comparisons, classifiers)


def compare_with_random(
    config: ProbeConfig, encoder: Encoder, images: Split, console: Console
) -> dict[Method, Comparison]:
    """The fits on the features of an encoder, unless it is random, and on those of random ones."""
    own = None
    if config.weights != "none":
        own = fit_encoder("the encoder", encoder, images, config, console)
    random = {}
    for seed in config.random_seeds:
        other = probe.random_like(encoder, seed)
        random[seed] = fit_encoder(f"random {seed}", other, images, config, console)
    return {
        method: Comparison(
            own[method] if own else None, {seed: one[method] for seed, one in random.items()}
        )
        for method in config.methods
    }


def load_images(
    config: ProbeConfig, policies: Mapping[str, PolicyPlay]
) -> tuple[Split, LabelledImages]:
    """The images to fit on and to test on, all of one size, and all held-out images.

    Raises:
        UserError: as for :func:`run_probe`.
    """
    if config.weights not in ("none", "imagenet"):
        about = read_about(weights_file(Path(config.weights)))
        check_held_out(config.data, config.seed, about, config.weights)
    if config.data.startswith(ATARI):
        build_before_play(config)
    split = load_data(
        config.data,
        config.data_dir,
        seed=config.seed,
        channels=config.channels,
        frames=config.frames,
        policies=policies,
    )
    images = probe.choose_images(
        split,
        chosen_task(split.train, config.task),
        train_size=config.train_size,
        test_size=config.test_size,
        size=config.size,
        seed=config.seed,
    )
    image_shape = images.train.image_shape
    if image_shape is None or image_shape != images.test.image_shape:
        raise UserError("the images differ in size: --size N resizes them to N x N pixels")
    return images, split.test


def build_before_play(config: ProbeConfig) -> None:
    """Builds an encoder for the observations of games, whose shape is known.

    Playing them takes minutes. A UserError says that encoder, options or weights do not fit.
    """
    side = config.size or config.frames.obs_size
    shape = (config.frames.frame_stack * config.frames.frame_channels, side, side)
    with size_option("--size" if config.size else "--frames.obs-size"):
        probe.build_encoder(config.encoder, shape, _encoder_options(config), config.weights)


def build_probed(
    config: ProbeConfig, name: str, images: Split
) -> tuple[Encoder, LoadReport | None]:
    """The encoder ``name`` with the configuration's weights, for these images."""
    shape = images.train.image_shape
    assert shape is not None
    with size_option("--size"):
        return probe.build_encoder(name, shape, _encoder_options(config), config.weights)


def _encoder_options(config: ProbeConfig) -> dict[str, Any]:
    channels = config.frames.frame_channels if config.data.startswith(ATARI) else None
    return with_frame_channels(config.encoder, config.encoder_options, channels)


def _evaluate(
    networks: Sequence[Network],
    held_out: LabelledImages,
    chosen: LabelledImages,
    config: ProbeConfig,
    console: Console,
) -> dict[str, Evaluation]:
    """The results of trained networks on the chosen of the held-out images, at their own sizes."""
    assert isinstance(chosen, ChosenImages)
    whole = ChosenImages(held_out, chosen.indices, chosen.tasks[0])
    found = {}
    for network in networks:
        prepared = network.prepared_for(config.data, held_out)
        with waiting(console, f"evaluating {network.source}"):
            assessment = assess(
                [prepared], whole, batch_size=config.batch_size, device=config.device
            )
        found[network.source] = assessment.together
    return found


def fit_encoder(
    name: str, encoder: Encoder, images: Split, config: ProbeConfig, console: Console
) -> dict[Method, Fit]:
    """The fit of each method on the features of one encoder."""
    with ProgressDisplay(console) as display:
        task = display.add(f"{name}: encoding", sum(map(len, images)))
        train, test = (
            probe.encode(
                encoder,
                part,
                device=config.device,
                batch_size=config.batch_size,
                max_features=config.max_features,
                on_images=task.advance,
            )
            for part in images
        )
    train_labels, test_labels = (part.labels[:, 0].numpy() for part in images)
    found: dict[Method, Fit] = {}
    for method in config.methods:
        with waiting(console, f"{name}: fitting {METHOD_NAMES[method]}"):
            found[method] = probe.fit(
                method,
                train,
                train_labels,
                test,
                test_labels,
                seed=config.seed,
                episodes=images.test.episodes,
            )
        if not found[method].converged:
            console.print(f"{name}: {METHOD_NAMES[method]} did not reach its tolerance")
    return found
