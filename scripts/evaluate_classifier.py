"""Judges classifiers, alone or as an ensemble, on labelled images: see --help."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from agents.evaluate.players import load_players
from envs.errors import UserError
from rlcnn.accelerate.devices import resolve_device
from rlcnn.config.cli import parse_options, run_script
from rlcnn.config.fields import check_range, dataclass_of
from rlcnn.data.atari.options import FrameOptions
from rlcnn.data.by_name import check_held_out, load_data
from rlcnn.data.images import ImageFiles, JoinedImages, LabelledImages
from rlcnn.data.label_file import load_labelled_files
from rlcnn.runs.files import check_writable, write_json_atomic
from rlcnn.runs.progress import ProgressDisplay, make_console
from rlcnn.runs.provenance import provenance
from rlcnn.supervised.config import MAX_SEED
from rlcnn.supervised.evaluation.assessment import Assessment, assess, check_channels
from rlcnn.supervised.evaluation.error_plots import write_error_plots
from rlcnn.supervised.evaluation.networks import Network, load_network
from rlcnn.supervised.setup import CHANNELS

FOLDER = "folder:"


@dataclass(frozen=True)
class Options:
    """Judge a classifier on labelled images; several are an ensemble, the mean of what they say."""

    weights: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="WEIGHTS_OR_RUN...")
    ]
    """Runs of pretrain_encoder.py, weights files of theirs, or whole networks of torchvision or
    timm: a file, or imagenet."""
    encoder: str | None = None
    """Network that the weights are of, where they do not say it themselves: resnet18, timm:NAME."""
    data: str | None = None
    """Labelled images: folder:DIR, mnist, fashion_mnist, cifar10, atari:GAME[,GAME...]; by default
    those that the run was trained on."""
    labels: Path | None = None
    """CSV with columns file,class_index for a folder's images, there or here; without it a class is
    a folder."""
    data_dir: Path | None = None
    """Directory of the published sets; by default the run's own, or data."""
    part: Literal["test", "train", "all"] | None = None
    """Which of the images; by default test, those held out."""
    crops: Literal[1, 10] = 1
    """Crops of each image: the middle, or four corners and the centre and their mirror images."""
    resize: int | None = None
    """Shorter side that images are first brought to; by default what the network was published or
    trained with."""
    size: int | None = None
    """Side of the crops of a published network; by default what it was published with."""
    channels: Literal[1, 3] | None = None
    """Decode a folder's images to grey (1) or RGB (3); by default grey where all are, else RGB."""
    task: str | None = None
    """What to ask, of images that have several labels."""
    json: Path | None = None
    """File to write the result to, with the confusion matrix."""
    plots: Path | None = None
    """Directory for pictures: confusion.png, worst.png, top5.png."""
    batch_size: int = 64
    """Crops that go through the network at once."""
    seed: int | None = None
    """Chooses the held-out images of a folder without test/; by default the run's own."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 ..."""


def main(arguments: list[str]) -> None:
    """Parses a command line, judges and tells the result."""
    options = parse_options(Options, arguments)
    check(options)
    console = make_console()
    device = resolve_device(options.device)
    networks = [
        load_network(
            weights, options.encoder, size=options.size, resize=options.resize, device=device
        )
        for weights in options.weights
    ]
    for network in networks:
        console.print(network.report)
    images = load_images(options, networks)
    if options.labels is None:
        data = options.data or networks[0].training.get("data")
        networks = [network.prepared_for(data, images) for network in networks]
    with ProgressDisplay(console) as display:
        task = display.add("evaluating", len(images))
        assessment = assess(
            networks,
            images,
            crops=options.crops,
            task=options.task,
            batch_size=options.batch_size,
            device=device,
            on_images=lambda count: display.update(task, advance=count),
        )
    print(*told(assessment, options), sep="\n")
    if options.json is not None:
        write_json_atomic(options.json, document(assessment, options, networks))
    if options.plots is not None:
        names = [path.name for path in images.paths] if isinstance(images, ImageFiles) else None
        # As the network saw it, which is what its answer is about.
        transform = networks[0].transform
        for path in write_error_plots(
            assessment, lambda index: transform.centre(images[index])[0], options.plots, names
        ):
            console.print(f"wrote {path}")


def check(options: Options) -> None:
    """Refuses what can be refused before anything is read."""
    if not options.weights:
        raise UserError("WEIGHTS_OR_RUN is missing: what to judge?")
    for name in ("resize", "size", "batch_size"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')} {value} must be at least 1")
    if options.seed is not None:
        check_range("seed", options.seed, least=0, most=MAX_SEED)
    if options.labels is not None:
        if not (options.data or "").startswith(FOLDER):
            raise UserError(f"--labels is for the images of a folder: give --data {FOLDER}DIR")
        if options.part is not None:
            raise UserError("--labels names the images itself: --part does not apply")
    if options.json is not None:
        check_writable("--json", options.json)
    if options.plots is not None and not options.plots.is_dir():
        check_writable("--plots", options.plots)
        if options.plots.exists():
            raise UserError(f'--plots "{options.plots}" is a file, not a directory')


def load_images(options: Options, networks: list[Network]) -> LabelledImages:
    """The images to judge on."""
    network = networks[0]
    trained = network.training
    if options.labels is not None and options.data is not None:
        directory = Path(options.data.removeprefix(FOLDER))
        channels = options.channels or (1 if network.channels == 1 else 3)
        if options.task is None and len(network.tasks) > 1:
            names = " or ".join(task.name for task in network.tasks)
            raise UserError(f"the network answers several questions: give --task {names}")
        task = network.tasks[network.task(options.task or network.tasks[0].name)]
        return load_labelled_files(options.labels, directory, task, channels=channels)
    data = options.data or trained.get("data")
    if data is None:
        raise UserError(
            f'"{network.source}" does not say what it was trained on: give --data {FOLDER}DIR'
        )
    # Another seed would hold out other images, some of which it has learned from.
    seed = options.seed if options.seed is not None else trained.get("seed", 0)
    if options.part in (None, "test"):
        for member in networks:
            check_held_out(data, seed, member.training, member.source)
    colours = CHANNELS.get(trained.get("colours", "auto"))
    # Observations as the network knows them, also of games that it has not seen.
    frames = dataclass_of(FrameOptions, trained.get("frames", {}), "frames.")
    # By the same players, too, of the games that they played.
    players = trained.get("players", ()) if data == trained.get("data") else ()
    split = load_data(
        data,
        options.data_dir or Path(trained.get("data_dir", "data")),
        seed=seed,
        channels=options.channels or (colours if data == trained.get("data") else None),
        frames=frames,
        policies=load_players(players, frames, seed=seed, device=options.device),
    )
    if options.part == "all":
        for images in split:
            check_channels(images.channels, network)
        return JoinedImages(split)
    return split.train if options.part == "train" else split.test


def told(assessment: Assessment, options: Options) -> list[str]:
    """The result in lines to read."""
    crops = "the middle of each" if assessment.crops == 1 else "10 crops of each"
    lines = [f"images: {len(assessment.indices):,} ({crops})"]
    if len(assessment.members) > 1:
        for weights, member in zip(options.weights, assessment.members, strict=True):
            lines.append(f"{weights}: {figures_told(member.figures())}")
        lines.append(f"together: {figures_told(assessment.together.figures())}")
        return lines
    return [*lines, *figures_told(assessment.together.figures()).split(", ")]


def figures_told(figures: dict[str, Any]) -> str:
    """``top-1 57.50% (95% interval 42.20 to 71.49), top-5 ...``."""
    parts = []
    for k in (1, 5):
        if f"top{k}" in figures:
            lower, upper = figures[f"top{k}_interval"]
            share = 100 * figures[f"top{k}"]
            parts.append(
                f"top-{k} {share:.2f}% (95% interval {100 * lower:.2f} to {100 * upper:.2f})"
            )
    return ", ".join(parts)


def document(assessment: Assessment, options: Options, networks: list[Network]) -> dict[str, Any]:
    """Everything about the result, as JSON values."""
    views = [
        {
            "weights": network.source,
            "encoder": options.encoder,
            "height": network.transform.height,
            "width": network.transform.width,
            "resize": network.transform.resize,
            "pad": network.transform.pad,
            "interpolation": network.transform.interpolation,
        }
        for network in networks
    ]
    return {
        "networks": views,
        "data": options.data or networks[0].training.get("data"),
        "labels": options.labels,
        "part": None if options.labels else options.part or "test",
        **assessment.to_json(),
        "provenance": provenance(),
    }


if __name__ == "__main__":
    run_script(main)
