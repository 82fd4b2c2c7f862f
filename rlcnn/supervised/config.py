"""The options of a training on labelled images."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from annotated_types import Interval

from envs.errors import UserError
from envs.machine.cores import usable_cores
from rlcnn.config.fields import (
    MAX_COUNT,
    WHOLE,
    Fraction,
    KeepCheckpoints,
    NonNegative,
    SeedNumber,
    Switch,
    Threads,
    check_options,
    from_json,
    never,
)
from rlcnn.config.files import read_config_file
from rlcnn.config.groups import Computation, EncoderMode, Tracking
from rlcnn.data.atari.options import FrameOptions
from rlcnn.data.augment_options import AugmentConfig
from rlcnn.data.names import ATARI, FOLDER, check_data_name
from rlcnn.runs.directory import RunDirectory
from rlcnn.runs.tracking.tracker import check_tracking
from rlcnn.selfsupervised.options import Objectives

RecipeName = Literal[
    "frames",
    "lenet5-1998",
    "alexnet-2012",
    "resnet-cifar-2016",
    "resnet9-2018",
    "sgi-2021",
    "atc-2021",
]
RECIPE_NAMES = get_args(RecipeName)

FINETUNE_FACTOR = 0.1

AtLeastOne = Annotated[int, Interval(ge=1, le=10**6)]
Share = Annotated[float, Interval(ge=0, le=1), never(1, "learns nothing: expected less")]


@dataclass(frozen=True)
class PretrainingRun:
    """Run."""

    recipe: RecipeName = "frames"
    """Defaults of all other options: those of a publication, or frames, for the frames of games."""
    epochs: AtLeastOne = 10
    """Passes over the images."""
    seed: SeedNumber = 0
    """Seed of everything random, 0 to 2147483647."""
    checkpoint_every: Annotated[int, Interval(ge=0, le=1024)] = 1
    """Epochs between two checkpoints; 0 keeps the last state only."""
    keep_checkpoints: KeepCheckpoints = 1
    """Newest checkpoints to keep."""


@dataclass(frozen=True)
class TrainingImages:
    """Images."""

    data: str = "atari:Pong"
    """Labelled images: mnist, fashion_mnist, cifar10, folder:DIR, or atari:GAME[,GAME...]."""
    data_dir: str = "data"
    """Directory of the published sets, which are downloaded to it where they are missing."""
    train_size: Annotated[int | None, Interval(ge=1, le=MAX_COUNT), WHOLE] = None
    """Training images to learn from, drawn by the seed, as probe_encoder.py draws them; by default
    all."""
    colours: Literal["auto", "grey", "rgb"] = "auto"
    """Colours of a folder's images; auto leaves them as they are."""
    players: tuple[str, ...] = ()
    """Run directories of trained agents, which play their own games for atari: data; all others are
    played at random."""


@dataclass(frozen=True)
class EncoderTraining(EncoderMode):
    """Encoder."""

    finetune_factor: Annotated[float | None, Interval(gt=0)] = None
    """For --mode finetune: learning rate of the encoder, as a factor of the head's; by default
    0.1."""


@dataclass(frozen=True)
class Optimization:
    """Optimization."""

    batch_size: AtLeastOne = 256
    """Images in a minibatch."""
    optimizer: Literal["sgd", "adamw"] = "adamw"
    """SGD with momentum, or AdamW (Loshchilov & Hutter 2019)."""
    learning_rate: NonNegative = 1e-3
    """Greatest learning rate."""
    momentum: Share = 0.9
    """SGD's momentum, or AdamW's first beta."""
    nesterov: bool = False
    """Whether SGD's momentum is Nesterov's."""
    weight_decay: NonNegative = 0.01
    """Weight decay: the L2 penalty's gradient in SGD, decoupled in AdamW."""
    decay_all: bool = False
    """Whether weight decay also applies to biases and normalisation layers."""
    schedule: Literal["constant", "linear", "cosine", "steps"] = "cosine"
    """Learning rate after the warm-up: constant; linear or cosine, falling to 0; steps, multiplied
    by --step-factor at each of --milestones."""
    warmup_epochs: NonNegative = 0.0
    """Epochs over which the learning rate rises linearly from 0."""
    milestones: tuple[Fraction, ...] = (0.5, 0.75)
    """For --schedule steps: shares of the run after which the learning rate is multiplied by
    --step-factor."""
    step_factor: NonNegative = 0.1
    """For --schedule steps: factor of the learning rate at each milestone."""
    label_smoothing: Share = 0.0
    """Share of the target that is spread evenly over all classes (Szegedy et al. 2016)."""
    dropout: Share = 0.0
    """Probability with which each feature is zeroed before the head."""
    ema: Share = 0.0
    """Decay of a moving average of the weights, which is then evaluated and saved; 0 for none."""


@dataclass(frozen=True)
class ImageEvaluation:
    """Evaluation."""

    eval_every: AtLeastOne = 1
    """Epochs between two evaluations on the held-out images."""
    baselines: Switch = "auto"
    """Whether the accuracy is compared with the majority class, a linear classifier on the features
    of a random encoder, and one on pixels; auto does so for atari: data."""
    baseline_images: Annotated[int, Interval(ge=0, le=10**9)] = 20_000
    """Training images, drawn by the seed, on which the linear classifiers of --baselines are
    fitted; of each game if there are several. 0 takes all."""


@dataclass(frozen=True)
class PretrainingSpeed(Computation):
    """Device and speed."""

    channels_last: bool = True
    """Whether the encoder's weights are laid out for images in channels_last order."""
    num_workers: Threads = 0
    """Processes that decode and augment images, if images must be prepared one by one; 0 prepares
    them in the main process."""


# The last base comes first in --help and in a run's config.json.
@dataclass(frozen=True)
class PretrainConfig(
    PretrainingSpeed,
    Tracking,
    ImageEvaluation,
    Optimization,
    Objectives,
    EncoderTraining,
    TrainingImages,
    PretrainingRun,
):
    """A pretraining of an encoder: with a linear head on labelled images, or without labels."""

    augment: AugmentConfig = field(default_factory=AugmentConfig)
    frames: FrameOptions = field(default_factory=FrameOptions)

    def to_json(self) -> dict[str, Any]:
        """The configuration as plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> PretrainConfig:
        """Reads what :meth:`to_json` wrote; what is missing takes its default.

        Raises:
            UserError: An option is unknown or of the wrong type.
        """
        return from_json(cls, values)

    def validate(self) -> None:
        """Checks every value that can be checked without the data.

        Raises:
            UserError: A value is not valid; the line names it and what was expected.
        """
        check_options(self)
        check_tracking(self.track, self.tracker, self.log_model)
        check_options(self.augment, "augment")
        self.frames.check()
        check_data_name(self.data)
        if self.colours != "auto" and not self.data.startswith(FOLDER):
            raise UserError(f'--colours {self.colours} is for folder: data, not "{self.data}"')
        self.check_finetuning(finetune_factor=self.finetune_factor)
        if self.train_size is not None and self.data.startswith(ATARI):
            raise UserError(
                f"--train-size {self.train_size} is for images: --frames.train-frames says how many"
                " of a game to play"
            )
        if self.warmup_epochs > self.epochs:
            raise UserError(
                f"--warmup-epochs {self.warmup_epochs} must be at least 0 and at most {self.epochs}"
            )
        if self.nesterov and (self.optimizer != "sgd" or self.momentum == 0):
            raise UserError("--nesterov is for --optimizer sgd with a --momentum")
        if self.augment.scale_to < self.augment.scale_from:
            raise UserError(
                f"--augment.scale-to {self.augment.scale_to} must be at least"
                f" {self.augment.scale_from} and at most 10"
            )
        if self.players and not self.data.startswith(ATARI):
            raise UserError(f'--players is for atari: data, not "{self.data}"')
        if self.frames.random_share and not self.players:
            raise UserError("--frames.random-share is for games that --players play")
        if self.needs_sequences:
            self._check_sequences()

    def _check_sequences(self) -> None:
        names = " ".join(self.objectives)
        if not self.data.startswith(ATARI):
            raise UserError(
                f"--objectives {names} needs sequences of frames with the actions between them:"
                f' expected --data atari:GAME, not "{self.data}"'
            )
        if self.augment != AugmentConfig():
            raise UserError(
                f"--augment is for --objectives classify alone: with --objectives {names}"
                " observations are shifted and their intensity varies"
            )
        if "order" in self.frames.labels:
            raise UserError(
                f"--frames.labels order shuffles frames: leave it out for --objectives {names}"
            )

    def resolve(self) -> PretrainConfig:
        """The same run with every "auto" replaced by what it stands for on this machine.

        Raises:
            UserError: The device does not exist.
        """
        # Here, not above: it imports torch, and --help does without.
        from rlcnn.accelerate.devices import resolve_device, resolve_precision

        device = resolve_device(self.device)
        baselines: Any = "on" if self.data.startswith(ATARI) else "off"
        factor = self.finetune_factor
        if factor is None and self.mode == "finetune":
            factor = FINETUNE_FACTOR
        return replace(
            self,
            device=device,
            precision=resolve_precision(device) if self.precision == "auto" else self.precision,
            num_threads=self.num_threads or usable_cores(),
            baselines=baselines if self.baselines == "auto" else self.baselines,
            finetune_factor=factor,
        )


def read_pretrain_config(source: RunDirectory | Path) -> PretrainConfig:
    """The configuration of a run, or in a ``config.json`` such as a run writes.

    Raises:
        UserError: the file is missing or damaged, or holds no configuration of such a training.
    """

    def missing(document: dict[str, Any]) -> str:
        agents = " but that of an agent's training" if "config" in document else ""
        return f"holds no configuration of a pretraining{agents}"

    return read_config_file(source, "pretraining", PretrainConfig.from_json, missing)
