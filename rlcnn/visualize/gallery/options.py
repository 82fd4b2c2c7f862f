"""Options of pictures, apart from what draws them: ``--help`` needs no torch."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, get_args

from annotated_types import Interval

from envs.errors import UserError
from rlcnn.config.fields import (
    MAX_COUNT,
    MAX_SIDE,
    Arg,
    Count,
    EncoderName,
    EncoderOptions,
    NonNegative,
    SeedNumber,
    check_options,
    check_value,
)
from rlcnn.config.groups import DeviceChoice
from rlcnn.data.atari.options import FrameOptions
from rlcnn.data.names import ATARI, FOLDER, check_data_name
from rlcnn.runs.files import check_writable

Picture = Literal[
    "filters",
    "activations",
    "neighbours",
    "errors",
    "embedding",
    "saliency",
    "strip",
    "style",
    "charts",
    "curves",
]
PAGE = "index.html"
"""Name of the gallery in the directory of pictures."""

PICTURES: tuple[Picture, ...] = get_args(Picture)

_Few = Annotated[int, Interval(ge=1, le=64)]
_Some = Annotated[int | None, Interval(ge=1, le=MAX_COUNT)]


@dataclass(frozen=True)
class ChosenPictures:
    """Pictures."""

    pictures: Annotated[tuple[Picture, ...], Arg(metavar="PICTURE...", positional=True)] = ()
    """filters, activations, neighbours, errors (confusion matrix, misclassified images, top-5
    bars), embedding, saliency, strip, style, charts or curves; several are one gallery."""
    layer: str | None = None
    """Layer whose maps to draw, such as features.3 or conv2; by default the encoder's node. For
    saliency, the layer of Grad-CAM; by default the last one with maps."""
    image: str | None = None
    """Image for activations: a file, or the number of a held-out image; by default one drawn by
    the seed."""
    maps: _Few = 11
    """Strongest channels to draw for the image."""
    channels_of_patches: _Few = 9
    """Of these channels, so many with the nine patches that excite them most."""
    queries: _Few = 5
    """Held-out images whose neighbours or saliency are drawn, or frames of the strip."""
    neighbours: _Few = 6
    """Nearest training images of each."""
    perplexity: Annotated[float, Interval(gt=0)] = 30.0
    """About how many neighbours t-SNE keeps near each image."""
    results: tuple[Path, ...] = ()
    """For charts: results of evaluate_classifier.py --json."""
    benchmark: Path | None = None
    """For charts: result of benchmark.py --parts encoders --json."""
    trainings: tuple[Path, ...] = ()
    """For curves: runs of pretrain_encoder.py, whose training and test errors are drawn."""


@dataclass(frozen=True)
class ShownNetwork:
    """Network."""

    run: Path | None = None
    """Directory of a run: an agent, whose images are frames of its own play, or a classifier."""
    encoder: str | None = None
    """Encoder, as train_agent.py takes it; by default the one that the weights name."""
    weights: str = "none"
    """none, imagenet, a weights file, or the directory of a run."""
    encoder_options: EncoderOptions = field(default_factory=dict)
    """Options of the encoder, as NAME VALUE pairs: pooling 4x4 resize 96."""


@dataclass(frozen=True)
class ShownImages:
    """Images."""

    data: str | None = None
    """Labelled images: folder:DIR, mnist, fashion_mnist, cifar10, or atari:GAME[,GAME...]; by
    default those that the weights were trained on."""
    labels: Path | None = None
    """CSV with columns file,class_index for a folder's images, in that folder or here; by default a
    class is a folder."""
    data_dir: Path | None = None
    """Directory of the published data sets; by default the run's own, or data."""
    size: Annotated[int | None, Interval(ge=1, le=MAX_SIDE)] = None
    """Side of the square that images are resized to; by default the network's own."""
    channels: Literal[1, 3] | None = None
    """Decode a folder's images to grey (1) or RGB (3); by default what the network takes."""
    players: tuple[str, ...] = ()
    """Run directories of agents that play their own games of atari: data; the other games are
    played at random."""
    task: str | None = None
    """Labels to compare by, of images with several, such as Pong/ball_x."""
    train_images: _Some = None
    """Training images to search in, drawn by the seed; by default 2,000, or all if they are
    fewer."""
    test_images: _Some = None
    """Held-out images, drawn by the seed; by default 500, or all if they are fewer."""
    seed: SeedNumber = 0
    """Draws the images, the untrained network and the start of t-SNE."""
    batch_size: Count = 64
    """Images in a batch of the encoder."""


@dataclass(frozen=True)
class StyleOptions:
    """Style transfer."""

    content: str | None = None
    """Picture to draw: a file, or the number of a held-out image; by default the first."""
    style: str | None = None
    """Picture whose style to take, likewise; by default the second."""
    content_layers: tuple[str, ...] = ()
    """By default the second convolution at the last size of maps but one (VGG-19: conv4_2)."""
    style_layers: tuple[str, ...] = ()
    """By default the first convolution at each size of maps (VGG-19: conv1_1 to conv5_1)."""
    content_weight: NonNegative = 1.0
    """Weight of the content loss, which is relative to the content's features."""
    style_weight: NonNegative = 10.0
    """Weight of the style loss, which is relative to that of the content picture."""
    tv_weight: NonNegative = 10.0
    """Weight of the total variation: the mean squared difference of neighbouring pixels."""
    optimizer: Literal["lbfgs", "adam"] = "lbfgs"
    """L-BFGS, as in the paper, or Adam."""
    learning_rate: Annotated[float, Interval(gt=0)] = 2.0
    """Learning rate of Adam, in grey levels of 0 to 255."""
    start: Literal["content", "style", "noise"] = "content"
    """First picture."""
    steps: Annotated[int, Interval(ge=1, le=10**6)] = 200
    """Steps of the optimiser."""
    every: Annotated[int, Interval(ge=1, le=10**6)] = 50
    """Steps between two pictures."""


@dataclass(frozen=True)
class PictureOutput:
    """Output."""

    out: Path = Path("pictures")
    """Directory of the PNG and SVG files and of the gallery, index.html."""
    track: Literal["disabled", "offline", "online"] = "disabled"
    """Weights & Biases; WANDB_MODE and WANDB_DISABLED, where they are set, give the default."""
    project: str = "rlcnn"
    """Project in Weights & Biases."""


# The last base comes first in --help.
@dataclass(frozen=True)
class PictureConfig(DeviceChoice, PictureOutput, ShownImages, ShownNetwork, ChosenPictures):
    """Pictures of a network, and of its answers to images."""

    style: StyleOptions = field(default_factory=StyleOptions)
    # Fewer than for training: pictures show few of them.
    frames: FrameOptions = field(
        default_factory=lambda: FrameOptions(train_frames=4_000, test_frames=1_000)
    )

    def validate(self) -> None:
        """Checks what can be checked before anything is read.

        Raises:
            UserError: a value is not valid; the line names it and what was expected.
        """
        if not self.pictures:
            raise UserError(f"PICTURE is missing: expected one of {', '.join(PICTURES)}")
        if len(set(self.pictures)) < len(self.pictures):
            raise UserError(f"pictures {' '.join(self.pictures)}: give each once")
        check_options(self)
        check_value("encoder", self.encoder, EncoderName)
        check_options(self.style, "style")
        self.frames.check()
        if ("curves" in self.pictures) != bool(self.trainings):
            raise UserError(
                "curves need --trainings RUN_DIR..., runs of pretrain_encoder.py"
                if not self.trainings
                else "--trainings are for the picture curves"
            )
        if self.run is not None and (self.weights != "none" or self.encoder is not None):
            raise UserError("--run has its own network: leave out --encoder and --weights")
        if self.data is not None:
            check_data_name(self.data)
        if self.labels is not None and not (self.data or "").startswith(FOLDER):
            raise UserError(f"--labels is for the images of a folder: give --data {FOLDER}DIR")
        if self.players and not (self.data or "").startswith(ATARI):
            raise UserError("--players are for --data atari:GAME")
        check_out(self.out)


def check_out(directory: Path) -> None:
    """Checks, before work begins, whether a page can be written to a directory, new or not.

    Raises:
        UserError: it cannot.
    """
    place = directory.absolute()
    existing = next(path for path in (place, *place.parents) if path.exists())
    if not existing.is_dir():
        raise UserError(f'--out "{directory}": "{existing}" is a file, not a directory')
    check_writable("--out", existing / PAGE)


def command_line(script: str, arguments: Sequence[str]) -> str:
    """The command of a script, to copy it from a page."""
    return shlex.join(["python", f"scripts/{script}", *arguments])
