"""Judges the frozen features of an encoder by linear classifiers: see --help."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from rich.console import Console

from agents.evaluate.players import load_players
from envs.errors import UserError
from rlcnn.accelerate.devices import resolve_device
from rlcnn.config.cli import parse_options, run_script
from rlcnn.config.fields import EncoderName
from rlcnn.data.atari.options import FrameOptions
from rlcnn.data.by_name import ATARI, check_held_out, load_data
from rlcnn.data.crops import CropTransform
from rlcnn.encoders import Encoder, with_frame_channels
from rlcnn.encoders.base import size_option
from rlcnn.runs.files import check_writable, write_json_atomic
from rlcnn.runs.progress import ProgressDisplay, make_console
from rlcnn.runs.provenance import provenance
from rlcnn.supervised.evaluation.assessment import chosen_task
from rlcnn.supervised.evaluation.linear import METHODS, Features, Fit, Method, fit
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

if TYPE_CHECKING:
    # Loaded by our packages, which first set what it reads from the environment.
    import torch

Transform: TypeAlias = "Callable[[torch.Tensor], torch.Tensor]"
"""Makes of an image, uint8 (channels, height, width), what an encoder takes."""

NAMES = {"svm": "linear SVM", "linear": "logistic regression"}


@dataclass(frozen=True)
class Options:
    """Fit linear classifiers on the features of a frozen encoder, and of random ones beside it."""

    encoder: EncoderName
    """Encoder whose features to judge, as train_agent.py takes them."""
    data: str
    """Labelled images: folder:DIR, mnist, fashion_mnist, cifar10, or atari:GAME[,GAME...]."""
    weights: str = "none"
    """none, imagenet, a weights file, or the directory of a run."""
    encoder_options: dict[str, int | float | bool | str] = field(default_factory=dict)
    """Options of the encoder, as NAME VALUE pairs: pooling 4x4 resize 96."""
    data_dir: Path = Path("data")
    """Directory of the published sets, which are downloaded to it where they are missing."""
    train_size: int | None = None
    """Images to fit on, drawn by the seed; by default all."""
    test_size: int | None = None
    """Images to test on, drawn by the seed; by default all."""
    size: int | None = None
    """Side of the square that images are brought to; needed where they differ in size."""
    channels: Literal[1, 3] | None = None
    """Decode a folder's images to grey (1) or RGB (3); by default grey where all are, else RGB."""
    frames: FrameOptions = field(default_factory=FrameOptions)
    """How games are played for atari: data, and what is asked of their frames."""
    players: tuple[str, ...] = ()
    """Run directories of agents that play the games they were trained on, of atari: data; the other
    games are played at random."""
    task: str | None = None
    """What to ask, of images that have several labels."""
    methods: tuple[Method, ...] = METHODS
    """Linear classifiers: svm, linear (logistic regression)."""
    random_seeds: tuple[int, ...] = (0,)
    """Seeds of the random encoders of the same architecture to set beside it."""
    max_features: int = 4096
    """Longer feature vectors are brought to so many dimensions by a fixed random projection."""
    json: Path | None = None
    """File to write the result to."""
    batch_size: int = 128
    """Images that go through the encoder at once."""
    seed: int = 0
    """Draws the images, and those on which the regularisation is chosen."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 ..."""


def main(arguments: list[str]) -> None:
    """Parses a command line, fits and tells the result."""
    options = parse_options(Options, arguments)
    check(options)
    console = make_console()
    device = resolve_device(options.device)
    if options.weights not in ("none", "imagenet"):
        about = read_about(weights_file(Path(options.weights)))
        check_held_out(options.data, options.seed, about, options.weights)
    split = load_data(
        options.data,
        options.data_dir,
        seed=options.seed,
        channels=options.channels,
        frames=options.frames,
        policies=load_players(
            options.players, options.frames, seed=options.seed, device=options.device
        ),
    )
    images = choose_images(
        *split,
        chosen_task(split.train, options.task).name,
        train_size=options.train_size,
        test_size=options.test_size,
        seed=options.seed,
    )
    shape = image_shape(images, options)
    frame_channels = options.frames.frame_channels if options.data.startswith(ATARI) else None
    encoder_options = with_frame_channels(options.encoder, options.encoder_options, frame_channels)
    with size_option("--size"):
        encoder, report = build_encoder(options.encoder, shape, encoder_options, options.weights)
    if report is not None:
        console.print(str(report))
    if encoder.features_dim > options.max_features:
        console.print(
            f"{encoder.features_dim:,} features are brought to {options.max_features:,} by a random"
            " projection; --max-features takes more, and an encoder's pooling makes less"
        )
    transform = centre(options.size) if options.size is not None else None
    if transform is not None:
        with console.status("reading the images"):
            held = read_once(images, transform)
        if held is not None:
            images, transform = held, None
    own = None
    if options.weights != "none":
        own = fits("the encoder", encoder, images, transform, options, device, console)
    random = {
        seed: fits(
            f"random {seed}",
            random_like(encoder, seed),
            images,
            transform,
            options,
            device,
            console,
        )
        for seed in options.random_seeds
    }
    comparisons = {
        method: Comparison(
            own[method] if own else None, {seed: one[method] for seed, one in random.items()}
        )
        for method in options.methods
    }
    print(*told(comparisons, images, encoder, options), sep="\n")
    if options.json is not None:
        document = {
            "encoder": encoder.spec(),
            "weights": options.weights,
            "report": report.to_json() if report else None,
            "data": options.data,
            "task": images.task,
            "train": len(images.train_indices),
            "test": len(images.test_indices),
            "features": min(encoder.features_dim, options.max_features),
            "seed": options.seed,
            "majority": images.majority(),
            "methods": {name: one.to_json() for name, one in comparisons.items()},
            "provenance": provenance(),
        }
        write_json_atomic(options.json, document)


def check(options: Options) -> None:
    """Refuses what can be refused before anything is read."""
    for name in ("size", "max_features", "batch_size"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')} {value} must be at least 1")
    for name, seeds in (("seed", (options.seed,)), ("random-seeds", options.random_seeds)):
        for seed in seeds:
            if not 0 <= seed < 2**31:
                raise UserError(f"--{name} {seed} must be at least 0 and at most {2**31 - 1}")
    options.frames.check()
    if options.players and not options.data.startswith(ATARI):
        raise UserError(f'--players is for atari: data, not "{options.data}"')
    if not options.methods:
        raise UserError(f"--methods takes at least one of {', '.join(METHODS)}")
    if options.weights == "none" and not options.random_seeds:
        raise UserError("--weights none is a random encoder: give --random-seeds")
    if options.json is not None:
        check_writable("--json", options.json)


def image_shape(images: ProbeImages, options: Options) -> tuple[int, int, int]:
    """(channels, height, width) of what the encoder sees."""
    if options.size is not None:
        return images.train.channels, options.size, options.size
    shapes = {images.train.image_shape, images.test.image_shape}
    shape = images.train.image_shape
    if shape is None or len(shapes) > 1:
        raise UserError("the images differ in size: --size N brings them to N x N pixels")
    return shape


def centre(size: int) -> Transform:
    """The middle square of an image, brought to a size."""
    transform = CropTransform(size, size)
    return lambda image: transform.centre(image)[0]


def fits(
    name: str,
    encoder: Encoder,
    images: ProbeImages,
    transform: Transform | None,
    options: Options,
    device: str,
    console: Console,
) -> dict[Method, Fit]:
    """What each method makes of the features of one encoder."""
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
                batch_size=options.batch_size,
                max_features=options.max_features,
                on_images=lambda done: display.update(task, advance=done),
            )
    found: dict[Method, Fit] = {}
    for method in options.methods:
        with console.status(f"{name}: fitting {NAMES[method]}"):
            found[method] = fit(
                method,
                features["train"],
                images.labels("train"),
                features["test"],
                images.labels("test"),
                seed=options.seed,
                episodes=images.episodes,
            )
        if not found[method].converged:
            console.print(f"{name}: {NAMES[method]} did not reach its tolerance")
    return found


def told(
    comparisons: dict[Method, Comparison], images: ProbeImages, encoder: Encoder, options: Options
) -> list[str]:
    """The result in lines to read."""
    lines = [
        f"{encoder.name}, {encoder.features_dim:,} features;"
        f" {len(images.train_indices):,} images to fit on, {len(images.test_indices):,} to test on",
        f"majority class: {100 * images.majority():.2f}%",
    ]
    for method, comparison in comparisons.items():
        if comparison.own:
            lines.append(f"{NAMES[method]}, {options.weights}: {fit_told(comparison.own)}")
        for seed, one in comparison.random.items():
            lines.append(f"{NAMES[method]}, random encoder {seed}: {fit_told(one)}")
        if comparison.gain is not None and comparison.gain_interval is not None:
            lower, upper = comparison.gain_interval
            lines.append(
                f"{NAMES[method]}, over random: {100 * comparison.gain:+.2f} points (95% interval"
                f" {100 * lower:+.2f} to {100 * upper:+.2f})"
            )
    return lines


def fit_told(found: Fit) -> str:
    """``58.15% (95% interval 55.97 to 60.30), C 0.001``."""
    lower, upper = found.interval
    share: Any = 100 * found.accuracy
    return f"{share:.2f}% (95% interval {100 * lower:.2f} to {100 * upper:.2f}), C {found.c:g}"


if __name__ == "__main__":
    run_script(main)
