"""Options of evaluations and probes, apart from what they do: ``--help`` needs no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Interval

from envs.errors import UserError
from rlcnn.config.fields import (
    MAX_COUNT,
    MAX_SEED,
    MAX_SIDE,
    Arg,
    Count,
    EncoderName,
    EncoderOptions,
    SeedNumber,
    check_options,
)
from rlcnn.config.groups import DeviceChoice
from rlcnn.data.atari.options import FrameOptions
from rlcnn.data.names import ATARI, FOLDER
from rlcnn.runs.files import check_writable

Method = Literal["svm", "linear"]
METHODS: tuple[Method, ...] = ("svm", "linear")


@dataclass(frozen=True)
class EvaluatedNetworks:
    """Networks."""

    weights: Annotated[tuple[str, ...], Arg(metavar="WEIGHTS_OR_RUN...", positional=True)]
    """Runs of pretrain_encoder.py, their weights files, or whole networks of torchvision or timm: a
    file, or imagenet."""
    encoder: str | None = None
    """Network of the weights, if they do not name it: resnet18, timm:NAME."""


@dataclass(frozen=True)
class EvaluatedImages:
    """Images."""

    data: str | None = None
    """Labelled images: folder:DIR, mnist, fashion_mnist, cifar10, atari:GAME[,GAME...]; by default
    those that the run was trained on."""
    labels: Path | None = None
    """CSV with columns file,class_index for a folder's images, in that folder or here; by default a
    class is a folder."""
    data_dir: Path | None = None
    """Directory of the published data sets; by default the run's own, or data."""
    part: Literal["test", "train", "all"] | None = None
    """Part of the images: test, the held-out images and the default; train, those of training; all,
    both."""
    crops: Literal[1, 10] = 1
    """Crops of each image: 1, the centre; 10, the four corners and the centre, and their mirror
    images."""
    resize: Annotated[int | None, Interval(ge=1, le=MAX_SIDE)] = None
    """Shorter side that images are first resized to; by default that of the network's publication
    or training."""
    size: Annotated[int | None, Interval(ge=1, le=MAX_SIDE)] = None
    """Side of the crops of a published network; by default the published one."""
    channels: Literal[1, 3] | None = None
    """Decode a folder's images to grey (1) or RGB (3); by default grey if all are, else RGB."""
    task: str | None = None
    """Task to evaluate, if images have several labels."""
    seed: Annotated[int | None, Interval(ge=0, le=MAX_SEED)] = None
    """Seed that draws the held-out images of a folder without test/; by default the run's own."""
    batch_size: Count = 64
    """Crops in a batch of the network."""


@dataclass(frozen=True)
class UnseenClasses:
    """Classes that the network never saw."""

    word_vectors: Path | None = None
    """File of word vectors (word2vec, GloVe or FastText): images of classes that the network never
    saw are classified by the vectors of the classes' names."""
    conse_top: Annotated[int | None, Interval(ge=1, le=MAX_COUNT)] = None
    """For --word-vectors: most probable classes of the network whose vectors are averaged; by
    default 10."""


@dataclass(frozen=True)
class EvaluationOutput:
    """Output."""

    json: Path | None = None
    """File to write the result to, with the confusion matrix."""
    plots: Path | None = None
    """Directory for pictures: confusion.png, worst.png, top5.png."""


# The last base comes first in --help.
@dataclass(frozen=True)
class EvaluationConfig(
    DeviceChoice, EvaluationOutput, UnseenClasses, EvaluatedImages, EvaluatedNetworks
):
    """Evaluate a classifier on labelled images; the predictions of several are averaged."""

    def validate(self) -> None:
        """Checks what can be checked before anything is read.

        Raises:
            UserError: a value is not valid; the line names it and what was expected.
        """
        if not self.weights:
            raise UserError("WEIGHTS_OR_RUN is missing: what to evaluate?")
        check_options(self)
        if self.labels is not None:
            if not (self.data or "").startswith(FOLDER):
                raise UserError(f"--labels is for the images of a folder: give --data {FOLDER}DIR")
            if self.part is not None:
                raise UserError("--labels names the images itself: --part does not apply")
        if self.word_vectors is not None:
            self._check_zero_shot()
        elif self.conse_top is not None:
            raise UserError(f"--conse-top {self.conse_top} is for --word-vectors FILE")
        if self.json is not None:
            check_writable("--json", self.json)
        if self.plots is not None and not self.plots.is_dir():
            check_writable("--plots", self.plots)
            if self.plots.exists():
                raise UserError(f'--plots "{self.plots}" is a file, not a directory')

    def _check_zero_shot(self) -> None:
        if self.data is None:
            raise UserError(
                "--word-vectors is for images of classes that the network never saw: give --data"
                f" {FOLDER}DIR"
            )
        if self.labels is not None:
            raise UserError("--labels names classes of the network: not for --word-vectors")
        if self.plots is not None:
            raise UserError("--plots shows probabilities of classes: not for --word-vectors")


@dataclass(frozen=True, kw_only=True)
class ProbedEncoder:
    """Encoder."""

    encoder: EncoderName
    """Encoder whose features to evaluate, as train_agent.py takes them."""
    weights: str = "none"
    """Weights of the encoder: none (random), imagenet, a weights file, or the directory of a
    run."""
    encoder_options: EncoderOptions = field(default_factory=dict)
    """Options of the encoder, as NAME VALUE pairs: pooling 4x4 resize 96."""


@dataclass(frozen=True, kw_only=True)
class ProbedImages:
    """Images."""

    data: str = ""
    """Labelled images: folder:DIR, mnist, fashion_mnist, cifar10, or atari:GAME[,GAME...]."""
    data_dir: Path = Path("data")
    """Directory of the published data sets; missing ones are downloaded to it."""
    train_size: int | None = None
    """Images to fit on, drawn by the seed; by default all."""
    test_size: int | None = None
    """Images to test on, drawn by the seed; by default all."""
    size: Annotated[int | None, Interval(ge=1, le=MAX_SIDE)] = None
    """Side of the square that images are resized to; necessary if they differ in size."""
    channels: Literal[1, 3] | None = None
    """Decode a folder's images to grey (1) or RGB (3); by default grey if all are, else RGB."""
    players: tuple[str, ...] = ()
    """Run directories of agents that play their own games of atari: data; the other games are
    played at random."""
    task: str | None = None
    """Task to evaluate, if images have several labels."""
    seed: SeedNumber = 0
    """Seed that draws the images, and those on which the regularisation is chosen."""
    batch_size: Count = 128
    """Images in a batch of the encoder."""


@dataclass(frozen=True)
class ProbedNodes:
    """Nodes."""

    node_sweep: bool = False
    """Whether to rank the blocks of a network of torchvision or timm, given as NAME without a node,
    by the accuracy of a linear classifier on their outputs, with the first of --methods."""


@dataclass(frozen=True)
class Foreseen:
    """What agents reach."""

    foresee: str = ""
    """Game, such as Pong, in place of --data: probes whether a reward follows the frames and, with
    --players RUN_DIR, which action that agent takes next. Fits on at most 10,000 frames and tests
    on 5,000, unless --train-size and --test-size say otherwise."""
    reward_steps: Annotated[int, Interval(ge=1, le=1000)] = 10
    """For --foresee: agent steps within which a reward follows."""


@dataclass(frozen=True)
class LinearClassifiers:
    """Classifiers."""

    methods: tuple[Method, ...] = METHODS
    """Linear classifiers: svm, linear (logistic regression)."""
    random_seeds: tuple[SeedNumber, ...] = (0,)
    """Seeds of the random encoders of the same architecture to compare with."""
    max_features: Count = 4096
    """Greatest length of feature vectors; a fixed random projection shortens longer ones."""
    classifiers: tuple[str, ...] = ()
    """Runs of pretrain_encoder.py, or their weights files, to evaluate on the same test images; a
    table then compares frozen, fine-tuned and other networks."""
    json: Path | None = None
    """File to write the result to."""


# The last base comes first in --help.
@dataclass(frozen=True)
class ProbeConfig(
    DeviceChoice, LinearClassifiers, Foreseen, ProbedNodes, ProbedImages, ProbedEncoder
):
    """Fit linear classifiers to the features of a frozen encoder, and of random encoders."""

    frames: FrameOptions = field(default_factory=FrameOptions)

    def validate(self) -> None:
        """Checks what can be checked before anything is read.

        Raises:
            UserError: a value is not valid; the line names it and what was expected.
        """
        if self.foresee:
            self._check_foresight()
        elif not self.data:
            raise UserError(f"--data is missing: expected cifar10, {FOLDER}DIR, {ATARI}Pong ...")
        check_options(self)
        self.frames.check()
        if self.node_sweep and self.classifiers:
            raise UserError("--classifiers compares networks with one node: not for --node-sweep")
        if self.players and not (self.foresee or self.data.startswith(ATARI)):
            raise UserError(f'--players is for atari: data, not "{self.data}"')
        if not self.methods:
            raise UserError(f"--methods takes at least one of {', '.join(METHODS)}")
        if self.weights == "none" and not self.random_seeds:
            raise UserError("--weights none is a random encoder: give --random-seeds")
        if self.json is not None:
            check_writable("--json", self.json)

    def _check_foresight(self) -> None:
        for option, value in (
            ("--data", self.data),
            ("--task", self.task),
            ("--classifiers", " ".join(self.classifiers)),
            ("--node-sweep", "" if not self.node_sweep else "on"),
        ):
            if value:
                raise UserError(
                    f"--foresee {self.foresee} plays the game for its frames: leave out {option}"
                )
        if "," in self.foresee:
            raise UserError(f'--foresee "{self.foresee}" must be one game, such as Pong')
