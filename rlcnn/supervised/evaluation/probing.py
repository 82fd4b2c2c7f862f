"""A probe from its options to its result: an encoder's features beside those of random ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from envs.errors import UserError
from rlcnn.accelerate.devices import resolve_device
from rlcnn.data.atari.dataset import PolicyPlay
from rlcnn.data.by_name import check_held_out, load_data
from rlcnn.data.crops import CropTransform
from rlcnn.data.names import ATARI
from rlcnn.encoders import Encoder, with_frame_channels
from rlcnn.encoders.base import size_option
from rlcnn.runs.progress import ProgressDisplay
from rlcnn.runs.provenance import provenance
from rlcnn.supervised.evaluation.assessment import chosen_task
from rlcnn.supervised.evaluation.linear import Features, Fit, fit
from rlcnn.supervised.evaluation.options import Method, ProbeConfig
from rlcnn.supervised.evaluation.probe import (
    Comparison,
    ProbeImages,
    build_encoder,
    choose_images,
    encode,
    random_like,
    read_once,
)
from rlcnn.weights.load import read_about, weights_file
from rlcnn.weights.report import LoadReport

METHOD_NAMES = {"svm": "linear SVM", "linear": "logistic regression"}


@dataclass(frozen=True)
class ProbeResult:
    """The fits of each method on the features of the encoder and of random ones.

    Attributes:
        config: of the probe.
        encoder: that was probed.
        report: what became of its weights; None without any.
        images: that were fitted on and tested on.
        comparisons: one for each method.
    """

    config: ProbeConfig
    encoder: Encoder
    report: LoadReport | None
    images: ProbeImages
    comparisons: dict[Method, Comparison]

    def to_json(self) -> dict[str, Any]:
        """Everything about the result as JSON values."""
        config = self.config
        return {
            "encoder": self.encoder.spec(),
            "weights": config.weights,
            "report": self.report.to_json() if self.report else None,
            "data": config.data,
            "task": self.images.task,
            "train": len(self.images.train_indices),
            "test": len(self.images.test_indices),
            "features": min(self.encoder.features_dim, config.max_features),
            "seed": config.seed,
            "majority": self.images.majority(),
            "methods": {name: one.to_json() for name, one in self.comparisons.items()},
            "provenance": provenance(),
        }

    def lines(self) -> list[str]:
        """The result as lines of text."""
        images = self.images
        lines = [
            f"{self.encoder.name}, {self.encoder.features_dim:,} features;"
            f" {len(images.train_indices):,} images to fit on,"
            f" {len(images.test_indices):,} to test on",
            f"majority class: {100 * images.majority():.2f}%",
        ]
        for method, comparison in self.comparisons.items():
            name = METHOD_NAMES[method]
            if comparison.own:
                lines.append(f"{name}, {self.config.weights}: {_fit_line(comparison.own)}")
            for seed, one in comparison.random.items():
                lines.append(f"{name}, random encoder {seed}: {_fit_line(one)}")
            if comparison.gain is not None and comparison.gain_interval is not None:
                lower, upper = (100 * end for end in comparison.gain_interval)
                lines.append(
                    f"{name}, over random: {100 * comparison.gain:+.2f} points (95% interval"
                    f" {lower:+.2f} to {upper:+.2f})"
                )
        return lines


def run_probe(
    config: ProbeConfig, policies: Mapping[str, PolicyPlay], console: Console
) -> ProbeResult:
    """Fits and tests the linear classifiers of a valid configuration.

    Args:
        config: of the probe.
        policies: the agents that play games of atari: data, by game.
        console: shows progress.

    Raises:
        UserError: for data, weights or an encoder that do not fit each other or do not exist, and
            for images that the weights learned from.
    """
    device = resolve_device(config.device)
    if config.weights not in ("none", "imagenet"):
        about = read_about(weights_file(Path(config.weights)))
        check_held_out(config.data, config.seed, about, config.weights)
    frame_channels = config.frames.frame_channels if config.data.startswith(ATARI) else None
    options = with_frame_channels(config.encoder, config.encoder_options, frame_channels)
    if frame_channels is not None:
        # Before games are played, which takes minutes; the shape of their observations is known.
        side = config.size or config.frames.obs_size
        shape = (config.frames.frame_stack * frame_channels, side, side)
        with size_option("--size" if config.size else "--frames.obs-size"):
            build_encoder(config.encoder, shape, options, config.weights)
    split = load_data(
        config.data,
        config.data_dir,
        seed=config.seed,
        channels=config.channels,
        frames=config.frames,
        policies=policies,
    )
    images = choose_images(
        *split,
        chosen_task(split.train, config.task).name,
        train_size=config.train_size,
        test_size=config.test_size,
        seed=config.seed,
    )
    with size_option("--size"):
        encoder, report = build_encoder(
            config.encoder, _image_shape(images, config.size), options, config.weights
        )
    if report is not None:
        console.print(str(report))
    if encoder.features_dim > config.max_features:
        console.print(
            f"{encoder.features_dim:,} features are reduced to {config.max_features:,} by a random"
            " projection; --max-features keeps more, and an encoder's pooling makes fewer"
        )
    transform = None
    if config.size is not None:
        transform = _centre(config.size)
        with console.status("reading the images"):
            held = read_once(images, transform)
        if held is not None:
            images, transform = held, None

    def fits(name: str, probed: Encoder) -> dict[Method, Fit]:
        return _fits(name, probed, images, transform, config, device, console)

    own = fits("the encoder", encoder) if config.weights != "none" else None
    random = {s: fits(f"random {s}", random_like(encoder, s)) for s in config.random_seeds}
    comparisons = {
        method: Comparison(
            own[method] if own else None, {seed: one[method] for seed, one in random.items()}
        )
        for method in config.methods
    }
    return ProbeResult(config, encoder, report, images, comparisons)


def _image_shape(images: ProbeImages, size: int | None) -> tuple[int, int, int]:
    """(channels, height, width) of the encoder's input."""
    if size is not None:
        return images.train.channels, size, size
    shapes = {images.train.image_shape, images.test.image_shape}
    shape = images.train.image_shape
    if shape is None or len(shapes) > 1:
        raise UserError("the images differ in size: --size N resizes them to N x N pixels")
    return shape


def _centre(size: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """The middle square of an image, resized."""
    crop = CropTransform(size, size)
    return lambda image: crop.centre(image)[0]


def _fits(
    name: str,
    encoder: Encoder,
    images: ProbeImages,
    transform: Callable[[torch.Tensor], torch.Tensor] | None,
    config: ProbeConfig,
    device: str,
    console: Console,
) -> dict[Method, Fit]:
    """The fit of each method on the features of one encoder."""
    features: dict[str, Features] = {}
    count = len(images.train_indices) + len(images.test_indices)
    with ProgressDisplay(console) as display:
        task = display.add(f"{name}: encoding", count)
        for part in ("train", "test"):
            features[part] = encode(
                encoder,
                getattr(images, part),
                getattr(images, f"{part}_indices"),
                transform=transform,
                device=device,
                batch_size=config.batch_size,
                max_features=config.max_features,
                on_images=lambda done: display.update(task, advance=done),
            )
    found: dict[Method, Fit] = {}
    for method in config.methods:
        with console.status(f"{name}: fitting {METHOD_NAMES[method]}"):
            found[method] = fit(
                method,
                features["train"],
                images.labels("train"),
                features["test"],
                images.labels("test"),
                seed=config.seed,
                episodes=images.episodes,
            )
        if not found[method].converged:
            console.print(f"{name}: {METHOD_NAMES[method]} did not reach its tolerance")
    return found


def _fit_line(found: Fit) -> str:
    """``58.15% (95% interval 55.97 to 60.30), C 0.001``."""
    share, lower, upper = (100 * value for value in (found.accuracy, *found.interval))
    return f"{share:.2f}% (95% interval {lower:.2f} to {upper:.2f}), C {found.c:g}"
