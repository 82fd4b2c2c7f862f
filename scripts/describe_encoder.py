"""Prints the layers of an encoder with their shapes, parameters and MACs: see --help."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Interval

from envs.errors import UserError
from rlcnn.config.cli import parse_options
from rlcnn.config.fields import MAX_COUNT, Count, EncoderName, EncoderOptions, check_options
from rlcnn.config.script import run_script


@dataclass(frozen=True)
class Options:
    """Print a table of an encoder's layers: output shapes, parameters, multiply-accumulates.

    Examples:
      python scripts/describe_encoder.py --encoder lenet --shape 1 32 32 --classes 10
      python scripts/describe_encoder.py --encoder resnet18:logits
      python scripts/describe_encoder.py --encoder cifar_resnet --encoder-options depth 56
    """

    encoder: EncoderName = "nature"
    """Encoder, as train_agent.py takes it; NAME:logits is a whole network of torchvision or timm.
    """
    encoder_options: EncoderOptions = field(default_factory=dict)
    """Options of the encoder, as NAME VALUE pairs: width 2 pooling mean."""
    shape: tuple[Count, ...] = ()
    """Channels, height and width of the images; by default those of a published network, or an
    agent's observations, 4 84 84."""
    classes: Annotated[int, Interval(ge=0, le=MAX_COUNT)] = 0
    """Classes of a linear layer behind the encoder; 0 adds none."""


def main(arguments: list[str]) -> None:
    """Parses a command line and prints the table."""
    options = parse_options(Options, arguments)
    check_options(options)
    if len(options.shape) not in (0, 3):
        raise UserError(
            f"--shape takes channels, height and width, such as 3 32 32, not {len(options.shape)}"
            f" number{'s' * (len(options.shape) != 1)}"
        )
    # After the command line: it takes seconds.
    from rlcnn.encoders.layer_table import describe_encoder

    print(
        *describe_encoder(options.encoder, options.encoder_options, options.shape, options.classes),
        sep="\n",
    )


if __name__ == "__main__":
    run_script(main)
