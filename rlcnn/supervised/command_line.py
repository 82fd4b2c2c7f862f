"""The command line of a pretraining, apart from what trains: ``--help`` needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rlcnn.config.cli import given_value
from rlcnn.config.runs import RunOptions, RunRequest, parse_run
from rlcnn.supervised.config import PretrainConfig, read_pretrain_config
from rlcnn.supervised.recipes import DEFAULT_RECIPE, recipe_config


@dataclass(frozen=True)
class PretrainOptions(PretrainConfig, RunOptions):
    """All options of pretrain_encoder.py."""


def parse_pretraining(
    arguments: Sequence[str], options: type[PretrainOptions] = PretrainOptions
) -> RunRequest[PretrainConfig]:
    """Reads a command line; ``options`` is documented by ``--help``.

    Raises:
        UserError: an option is unknown or excludes another, or a value is not valid.
    """

    def recipe() -> PretrainConfig:
        name: Any = given_value(arguments, "--recipe") or DEFAULT_RECIPE
        return recipe_config(name, given_value(arguments, "--encoder"))

    run = parse_run(options, PretrainConfig, arguments, read_pretrain_config, "--recipe", recipe)
    if run.resume is None:
        run.config.validate()
    return run
