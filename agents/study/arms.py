"""The arms of a study: what it compares, each given by one word on the command line."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from agents.config import TrainConfig
from agents.study.arm_options import (
    check_effects,
    parse_options_of,
    with_options,
    with_preset,
)
from envs.errors import UserError, nearest
from rlcnn.config.fields import OptionValue, named_value
from rlcnn.encoders import list_encoders, why_unknown
from rlcnn.runs.tracking.tracker import shortened

# File names contain an arm's name, and file systems allow 255 bytes.
_LONGEST_PART = 100

# Kind of arm -> mode of its encoder.
_MODES: dict[str, Literal["train", "frozen", "finetune"]] = {
    "scratch": "train",
    "frozen-random": "frozen",
    "frozen": "frozen",
    "finetune": "finetune",
}
_PRETRAINED = ("frozen", "finetune")
_ENDINGS = (".safetensors", ".pth", ".pt")
GRAMMAR = (
    "scratch[:NET], frozen-random[:NET], frozen:WEIGHTS, finetune:WEIGHTS, frozen:NET@WEIGHTS"
    " or finetune:NET@WEIGHTS, each with ::OPTION=VALUE,... behind it if it needs other options"
)


@dataclass(frozen=True)
class Arm:
    """One way to get an encoder.

    Attributes:
        kind: "scratch" (initial weights, trained), "frozen-random" (initial weights, frozen),
            "frozen" (loaded weights, frozen) or "finetune" (loaded weights, trained slowly).
        encoder: name of the encoder; empty for the study's own.
        encoder_options: the options that the arm names.
        weights: "none", "imagenet" or an absolute path.
        options: option of ``train_agent.py`` -> its value, as on its command line; see
            :func:`~agents.study.arm_options.with_options`.
    """

    kind: str
    encoder: str = ""
    encoder_options: dict[str, OptionValue] = field(default_factory=dict)
    weights: str = "none"
    options: dict[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The arm as :func:`parse_arm` reads it, from any working directory."""
        return self._joined(self.weights)

    @property
    def name(self) -> str:
        """The arm for people, with only the last part of a path and no file ending."""
        return self.named(1)

    @property
    def weights_name(self) -> str:
        """The weights for people: the last part of a path; empty without weights."""
        return "" if self.weights == "none" else self._weights_named(1)

    def named(self, parts: int) -> str:
        """The arm for people, with the last ``parts`` parts of its path."""
        return self._joined(self._weights_named(parts))

    def _weights_named(self, parts: int) -> str:
        path = Path(self.weights)
        if path.suffix in _ENDINGS:
            path = path.with_suffix("")
        return str(Path(*path.parts[-parts:]))

    def _joined(self, weights: str) -> str:
        net = self.encoder
        for name, value in self.encoder_options.items():
            net += f",{name}={value if isinstance(value, str) else json.dumps(value)}"
        rest = "@".join(filter(None, [net, "" if self.weights == "none" else weights]))
        whole = f"{self.kind}:{rest}" if rest else self.kind
        options = ",".join(f"{name}={value}" for name, value in self.options.items())
        return f"{whole}::{options}" if options else whole

    def configure(self, base: TrainConfig, explicit: Collection[str] = ()) -> TrainConfig:
        """The training of this arm.

        Its preset's defaults come first, then what differs in ``base`` from the preset of ``base``
        and its ``explicit`` options, then the arm's other options.

        The encoder options of ``base`` belong to the encoder of ``base``; an arm with another
        encoder has only the options that it names. Options of frozen features apply to frozen arms
        only, and options of fine-tuning to fine-tuned arms only.
        """
        base = with_preset(base, self.options, explicit)
        own = self.encoder in ("", base.encoder)
        defaults = TrainConfig()
        mode = _MODES[self.kind]
        if mode != "frozen":
            base = replace(base, feature_dtype=defaults.feature_dtype)
        if mode != "finetune":
            base = replace(
                base,
                unfreeze_from=defaults.unfreeze_from,
                unfreeze_at_step=defaults.unfreeze_at_step,
                head_factor=defaults.head_factor,
            )
        config = replace(
            base,
            encoder=self.encoder or base.encoder,
            encoder_options={**(base.encoder_options if own else {}), **self.encoder_options},
            weights=self.weights,
            mode=mode,
        )
        return with_options(config, self.options, f'--arms "{self.text}"')

    def validate(self, config: TrainConfig) -> None:
        """Checks the training ``config`` of this arm; a UserError names the arm's options."""
        if not self.options:
            config.validate()
            return
        where = f'--arms "{self.text}"'
        check_effects(config, self.options, where)
        try:
            config.validate()
        except UserError as error:
            raise UserError(f"{where}: {error}") from error


def parse_arm(text: str) -> Arm:
    """Reads an arm.

    ::

        ARM     = KIND[::OPTION=VALUE[,OPTION=VALUE]...]
        KIND    = scratch[:NET] | frozen-random[:NET] | (frozen | finetune):[NET@]WEIGHTS
        NET     = ENCODER[,OPTION=VALUE]...
        ENCODER = as --encoder takes it: impala, resnet18:layer2, timm:resnet18
        WEIGHTS = as --weights takes it: imagenet, a file, or the directory of a run
        OPTION  = of train_agent.py: preset, num_envs, dqn.n_steps

    The part before the first "@" is NET, unless it holds a "/" or the whole is a path that
    exists. The weights are checked when the encoder is built.

    Raises:
        UserError: the text is no arm; the line names the expected form and the nearest arm.
    """
    whole, separator, suffix = text.rpartition("::")
    if not separator or "/" in suffix.partition("=")[0]:
        # A path may contain "::"; no name of an option contains "/".
        whole, separator, suffix = text, "", ""
    options = parse_options_of(text, suffix) if separator else {}
    encoder = options.pop("encoder", "")
    if separator and not whole:
        raise UserError(f'--arms "{text}" names no kind before "::": expected {GRAMMAR}.')
    if "=" in whole.rpartition("::")[2] and "::" in whole and "/" not in whole:
        raise UserError(
            f'--arms "{text}" has "::" twice: expected one, with commas between the options behind'
        )
    arm = _parse_kind(whole)
    if not encoder:
        return replace(arm, options=options)
    if arm.encoder:
        raise UserError(f'--arms "{text}" names two encoders: {arm.encoder} and {encoder}')
    if reason := why_unknown(encoder):
        raise UserError(f'--arms "{text}": encoder "{encoder}" is unknown: {reason}')
    return replace(arm, encoder=encoder, options=options)


def _parse_kind(text: str) -> Arm:
    """Reads an arm without options."""
    kind, colon, rest = text.partition(":")
    if kind not in _MODES:
        near = nearest(kind, _MODES).replace('"?', f'{colon}{rest}"?')
        if re.split(r"[,\s]", kind)[0] in _MODES:
            near = " Arms are separated by spaces, each an argument of its own."
        raise UserError(f'--arms "{text}" is unknown: expected {GRAMMAR}.{near}')
    if colon and not rest:
        raise UserError(f'--arms "{text}" ends where more was expected: {GRAMMAR}')
    if kind not in _PRETRAINED:
        if "@" in rest:
            near = "frozen" if kind == "frozen-random" else "finetune"
            raise UserError(
                f'--arms "{text}": {kind} starts from initial values and takes no weights.'
                f' Did you mean "{near}:{rest}"?'
            )
        return Arm(kind, *_parse_net(text, rest)) if rest else Arm(kind)
    if not rest:
        hint = "scratch" if kind == "finetune" else "frozen-random"
        raise UserError(
            f'--arms "{text}" names no weights: expected {kind}:WEIGHTS or {kind}:NET@WEIGHTS;'
            f' without weights, "{hint}"'
        )
    net, at, weights = rest.partition("@")
    # For a name that is too long this is False; pathlib's exists() raises.
    there = os.path.exists(rest)
    if not at or "/" in net or there:
        net, weights = "", rest
        if not there and rest != "imagenet" and not why_unknown(rest.split(",")[0]):
            # There are no ImageNet weights for the encoders of this package.
            such = "RUN_DIR" if rest.split(",")[0] in list_encoders() else "imagenet"
            raise UserError(
                f'--arms "{text}" names an encoder but no weights: expected {text}@WEIGHTS, such as'
                f' "{text}@{such}"'
            )
    if not weights:
        raise UserError(f'--arms "{text}" names no weights after the "@"')
    where = weights if weights == "imagenet" else str(Path(weights).absolute())
    return Arm(kind, *(_parse_net(text, net) if at and net else ("", {})), where)


def directory_name(name: str) -> str:
    """``name`` without characters that file systems or shells treat specially, and shortened."""
    whole = re.sub(r"[^\w.=-]+", "-", name, flags=re.ASCII).strip("-.")
    return shortened(whole, _LONGEST_PART, name)


def _parse_net(text: str, net: str) -> tuple[str, dict[str, OptionValue]]:
    encoder, *pairs = net.split(",")
    if reason := why_unknown(encoder):
        raise UserError(f'--arms "{text}": encoder "{encoder}" is unknown: {reason}')
    options: dict[str, OptionValue] = {}
    for pair in pairs:
        option, equals, value = pair.partition("=")
        if not (option and equals and value):
            raise UserError(f'--arms "{text}": "{pair}" is no option: expected OPTION=VALUE')
        if option in options:
            raise UserError(f'--arms "{text}" gives option "{option}" twice')
        options[option] = named_value(value)
    return encoder, options
