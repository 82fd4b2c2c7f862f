"""Options that several configurations have in common, each class a group of ``--help``.

A configuration inherits its groups. Dataclasses take the fields of their last base first, so the
bases stand in the reverse order of the help.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from envs.errors import UserError
from rlcnn.config.fields import EncoderName, EncoderOptions, Threads, option_name


@dataclass(frozen=True)
class EncoderChoice:
    """Encoder."""

    encoder: EncoderName = "nature"
    """Convolutional encoder by name; or a classification network of torchvision, cut at a node
    (resnet18:layer2); or timm:NAME:NODE."""
    encoder_options: EncoderOptions = field(default_factory=dict)
    """Options of the encoder, as NAME VALUE pairs: width 2 pooling mean."""
    weights: str = "none"
    """Initial weights of the encoder: none, imagenet, a file (safetensors or .pth), or a run's
    directory."""


@dataclass(frozen=True)
class EncoderMode(EncoderChoice):
    """Encoder."""

    mode: Literal["train", "finetune", "frozen"] = "train"
    """How the encoder learns: train, like all other layers; finetune, at a fraction of their rate;
    frozen, not at all."""
    unfreeze_from: str = ""
    """First node of the encoder to fine-tune, such as layer2 or trunk.4; the layers before it stay
    frozen. Empty fine-tunes all layers."""

    def check_finetuning(self, **options: object) -> None:
        """Refuses options that only --mode finetune has a use for; a UserError names them.

        ``options`` are their values by name, false ones where they are not given.
        """
        for name, value in {"unfreeze_from": self.unfreeze_from, **options}.items():
            if value and self.mode != "finetune":
                learns = "all of the encoder" if self.mode == "train" else "nothing of the encoder"
                raise UserError(
                    f"{option_name(name)} {value} is for --mode finetune: --mode {self.mode} learns"
                    f" {learns}, from the start to the end"
                )

    def notes_on_mode(self) -> list[str]:
        """Lines about a mode that is allowed and perhaps not intended."""
        if self.weights != "none" or self.mode == "train":
            return []
        encoder = "frozen encoder" if self.mode == "frozen" else "encoder to be fine-tuned"
        return [f"the {encoder} has random weights: --weights gives others"]


@dataclass(frozen=True)
class DeviceChoice:
    """Device and speed."""

    device: str = "auto"
    """auto (the GPU where there is one), cpu, cuda, cuda:1 ..."""


@dataclass(frozen=True)
class Computation(DeviceChoice):
    """Device and speed."""

    precision: Literal["auto", "fp32", "tf32", "bf16"] = "auto"
    """Arithmetic of the encoder; auto takes bf16 where the device is fast at it. tf32 is float32
    whose products a GPU rounds to 10 bits of mantissa."""
    num_threads: Threads = 0
    """CPU threads of torch and of the emulator; 0 takes every core this process may use. In
    bfloat16 torch takes fewer while other programs compute."""


@dataclass(frozen=True)
class Tracking:
    """Tracking."""

    track: Literal["disabled", "offline", "online"] = "offline"
    """Whether the service of --tracker records the run: disabled, not; offline, on this machine,
    without an account (`wandb sync` uploads it later); online, it also uploads. WANDB_MODE and
    WANDB_DISABLED, if set, give the default."""
    tracker: Literal["wandb", "trackio"] = "wandb"
    """Service that records the run: Weights & Biases, or trackio, whose dashboard (`trackio show`)
    needs no account."""
    project: str = "rlcnn"
    """Project in Weights & Biases or trackio."""
    log_model: bool = False
    """Whether the service also keeps the trained model, as an artifact."""
