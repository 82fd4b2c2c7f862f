"""Options for a pretrained encoder: which go together, and which are unusual."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from envs.errors import UserError

if TYPE_CHECKING:
    from agents.config import TrainConfig

FeatureType = Literal["auto", "fp32", "bf16", "fp16"]
"""Type in which a frozen encoder's features are stored."""


def check_transfer(config: TrainConfig) -> None:
    """Refuses options of transfer that contradict each other; a UserError names them."""
    config.check_finetuning(
        unfreeze_at_step=config.unfreeze_at_step,
        head_factor=config.head_factor if config.head_factor != 1 else None,
    )
    if config.unfreeze_at_step and config.unfreeze_at_step >= config.total_steps:
        raise UserError(
            f"--unfreeze-at-step {config.unfreeze_at_step} is not reached before the end at"
            f" --total-steps {config.total_steps}: expected less, or --mode frozen"
        )
    if config.feature_dtype != "auto" and config.mode != "frozen":
        raise UserError(
            f"--feature-dtype {config.feature_dtype} is for the features that --mode frozen stores:"
            f" --mode {config.mode} stores frames; expected auto"
        )


def notes_on_transfer(config: TrainConfig) -> list[str]:
    """Lines about options that are allowed and perhaps not intended."""
    notes = config.notes_on_mode()
    if config.unfreeze_at_step:
        notes.append(
            f"the encoder is frozen until step {config.unfreeze_at_step:,}; frames are stored, not"
            " features"
        )
    return notes
