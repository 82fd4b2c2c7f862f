"""Everything a training on labelled images is told, as plain data."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from envs.errors import UserError
from envs.machine.cores import usable_cores
from rlcnn.accelerate.devices import PRECISIONS, resolve_device, resolve_precision
from rlcnn.config.fields import EncoderName, check_choice, check_range, dataclass_of
from rlcnn.data.atari.options import FrameOptions
from rlcnn.data.augment import AugmentConfig
from rlcnn.data.by_name import ATARI, FOLDER, check_data_name
from rlcnn.encoders import why_unknown
from rlcnn.runs.directory import RunDirectory
from rlcnn.runs.files import read_json

RecipeName = Literal["frames", "lenet5-1998", "alexnet-2012", "resnet-cifar-2016", "resnet9-2018"]
RECIPE_NAMES = get_args(RecipeName)

MAX_SEED = 2**31 - 1


@dataclass(frozen=True)
class PretrainConfig:
    """A training of an encoder, with a linear head, on labelled images."""

    recipe: RecipeName = "frames"
    """Where the defaults of all other options come from: the source that published them, or frames,
    for those of games."""
    data: str = "atari:Pong"
    """Labelled images: mnist, fashion_mnist, cifar10, folder:DIR, or atari:GAME[,GAME...]."""
    data_dir: str = "data"
    """Directory of the published sets, which are downloaded to it where they are missing."""
    encoder: EncoderName = "nature"
    """Convolutional encoder, as train_agent.py takes them."""
    encoder_options: dict[str, int | float | bool | str] = field(default_factory=dict)
    """Options of the encoder, as NAME VALUE pairs: depth 56."""
    weights: str = "none"
    """What the encoder starts from: none, imagenet, a weights file, or the directory of a run."""
    colours: Literal["auto", "grey", "rgb"] = "auto"
    """Colours of a folder's images; auto leaves them as they are."""
    epochs: int = 10
    """Passes over the images."""
    batch_size: int = 256
    """Images in a minibatch."""
    optimizer: Literal["sgd", "adamw"] = "adamw"
    """SGD with momentum, or AdamW (Loshchilov & Hutter 2019)."""
    learning_rate: float = 1e-3
    """Greatest learning rate."""
    momentum: float = 0.9
    """SGD's momentum, or AdamW's first beta."""
    nesterov: bool = False
    """Whether SGD's momentum is Nesterov's."""
    weight_decay: float = 0.01
    """Weight decay: the L2 penalty's gradient in SGD, decoupled in AdamW."""
    decay_all: bool = False
    """Whether biases and normalisation layers decay as well as weights."""
    schedule: Literal["constant", "linear", "cosine", "steps"] = "cosine"
    """What becomes of the learning rate after the warm-up."""
    warmup_epochs: float = 0.0
    """Epochs over which the learning rate rises linearly from 0."""
    milestones: tuple[float, ...] = (0.5, 0.75)
    """For --schedule steps: shares of the run after which the rate is multiplied by the factor."""
    step_factor: float = 0.1
    """For --schedule steps: factor of the learning rate at each milestone."""
    label_smoothing: float = 0.0
    """Share of the target that is spread evenly over all classes (Szegedy et al. 2016)."""
    dropout: float = 0.0
    """Probability with which each feature is zeroed before the head."""
    ema: float = 0.0
    """Decay of a moving average of the weights, which then is judged and saved; 0 for none."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """How images are brought to size and changed."""
    frames: FrameOptions = field(default_factory=FrameOptions)
    """How games are played for atari: data, and what is asked of their frames."""
    players: tuple[str, ...] = ()
    """Run directories of agents that play the games they were trained on, of atari: data; the other
    games are played at random."""
    seed: int = 0
    """Seed of everything random, 0 to 2147483647."""
    device: str = "auto"
    """auto (the GPU where there is one), cpu, cuda, cuda:1 ..."""
    precision: Literal["auto", "fp32", "tf32", "bf16"] = "auto"
    """Arithmetic of the encoder; auto takes bf16 where the device is fast at it. tf32 is float32
    whose products a GPU rounds to 10 bits of mantissa."""
    channels_last: bool = True
    """Whether the encoder's weights are laid out for images in channels_last order."""
    num_threads: int = 0
    """CPU threads of torch; 0 takes every core this process may use. In bfloat16 it takes
    fewer while other programs compute."""
    num_workers: int = 0
    """Processes that decode and augment images one by one, where that is needed; 0 does it in this
    one."""
    eval_every: int = 1
    """Epochs between two evaluations on the held-out images."""
    checkpoint_every: int = 1
    """Epochs between two checkpoints; 0 keeps the last state only."""
    keep_checkpoints: int = 1
    """Newest checkpoints to keep."""
    baselines: Literal["auto", "on", "off"] = "auto"
    """Whether the accuracy is set beside the majority class, a linear classifier on the features of
    the encoder at random, and one on pixels; auto does so for atari: data."""
    baseline_images: int = 20_000
    """Training images that these linear classifiers are fitted on, drawn by the seed, of each game
    where there are several; 0 takes all."""
    track: Literal["disabled", "offline", "online"] = "offline"
    """Weights & Biases; offline needs no account, and is uploaded by `wandb sync` later. WANDB_MODE
    and WANDB_DISABLED, where they are set, say the default."""
    project: str = "rlcnn"
    """Project in Weights & Biases."""

    def to_json(self) -> dict[str, Any]:
        """The configuration as plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> PretrainConfig:
        """Reads what :meth:`to_json` wrote; what is missing takes its default.

        Raises:
            UserError: An option is unknown or of the wrong type.
        """
        values = dict(values)
        for name, section in SECTIONS.items():
            values[name] = dataclass_of(section, values.get(name, {}), f"{name}.")
        config: PretrainConfig = dataclass_of(cls, values)
        return config

    def validate(self) -> None:
        """Checks every value that can be judged without the data.

        Raises:
            UserError: A value is not valid; the line names it and what was expected.
        """
        check_choice("recipe", self.recipe, RECIPE_NAMES)
        check_data_name(self.data)
        if reason := why_unknown(self.encoder):
            raise UserError(f'--encoder "{self.encoder}" is unknown: {reason}')
        check_choice("colours", self.colours, ("auto", "grey", "rgb"))
        if self.colours != "auto" and not self.data.startswith(FOLDER):
            raise UserError(f'--colours {self.colours} is for folder: data, not "{self.data}"')
        check_choice("optimizer", self.optimizer, ("sgd", "adamw"))
        check_choice("schedule", self.schedule, ("constant", "linear", "cosine", "steps"))
        check_choice("precision", self.precision, ("auto", *PRECISIONS))
        check_choice("baselines", self.baselines, ("auto", "on", "off"))
        check_choice("track", self.track, ("disabled", "offline", "online"))
        check_choice("augment.edge", self.augment.edge, ("mean", "reflect", "repeat"))
        for name in ("batch_size", "eval_every", "keep_checkpoints"):
            check_range(name, getattr(self, name), least=1, most=10**6)
        for name in ("checkpoint_every", "num_workers", "num_threads"):
            check_range(name, getattr(self, name), least=0, most=1024)
        check_range("epochs", self.epochs, least=1, most=10**6)
        check_range("baseline_images", self.baseline_images, least=0, most=10**9)
        check_range("warmup_epochs", self.warmup_epochs, least=0, most=self.epochs)
        check_range("seed", self.seed, least=0, most=MAX_SEED)
        for name in ("learning_rate", "weight_decay", "step_factor"):
            check_range(name, getattr(self, name), least=0)
        for name in ("momentum", "label_smoothing", "dropout", "ema"):
            check_range(name, getattr(self, name), least=0, most=1)
            if getattr(self, name) == 1:
                raise UserError(f"--{name.replace('_', '-')} 1 learns nothing: expected less")
        if self.nesterov and (self.optimizer != "sgd" or self.momentum == 0):
            raise UserError("--nesterov is for --optimizer sgd with a --momentum")
        for share in self.milestones:
            check_range("milestones", share, least=0, most=1)
        self._check_augmentation()
        if self.players and not self.data.startswith(ATARI):
            raise UserError(f'--players is for atari: data, not "{self.data}"')
        self.frames.check()

    def _check_augmentation(self) -> None:
        augment = self.augment
        for name in ("resize", "pad", "crop", "crop_padding", "cutout"):
            check_range(f"augment.{name}", getattr(augment, name), least=0, most=4096)
        check_range("augment.scale_from", augment.scale_from, least=0.1, most=10)
        check_range("augment.scale_to", augment.scale_to, least=augment.scale_from, most=10)

    def resolve(self) -> PretrainConfig:
        """The same run with every "auto" replaced by what it stands for on this machine.

        Raises:
            UserError: The device does not exist.
        """
        device = resolve_device(self.device)
        baselines: Any = "on" if self.data.startswith(ATARI) else "off"
        return replace(
            self,
            device=device,
            precision=resolve_precision(device) if self.precision == "auto" else self.precision,
            num_threads=self.num_threads or usable_cores(),
            baselines=baselines if self.baselines == "auto" else self.baselines,
        )


SECTIONS: dict[str, type[Any]] = {"augment": AugmentConfig, "frames": FrameOptions}
"""Fields that hold a dataclass of their own."""


def read_pretrain_config(source: RunDirectory | Path) -> PretrainConfig:
    """The configuration of a run, or in a ``config.json`` such as a run writes.

    Raises:
        UserError: the file is missing or damaged, or holds no configuration of such a training.
    """
    if isinstance(source, RunDirectory):
        document, path = source.config, source.path / "config.json"
    else:
        if not source.is_file():
            inside = source / "config.json"
            hint = f' Did you mean "{inside}"?' if inside.is_file() else ""
            raise UserError(f"configuration {source} is not a file.{hint}")
        document, path = read_json(source), source
    if not isinstance(document.get("pretraining"), dict):
        agents = " but that of an agent's training" if "config" in document else ""
        raise UserError(f"{path} holds no configuration of a pretraining{agents}")
    try:
        config = PretrainConfig.from_json(document["pretraining"])
        config.validate()
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return config
