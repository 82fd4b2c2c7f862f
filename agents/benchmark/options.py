"""Options of a benchmark, apart from what it does: ``--help`` needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

from annotated_types import Interval

from rlcnn.config.fields import MAX_ENVS, Rule

Scale = Literal["full", "tiny"]

Part = Literal["ceilings", "ppo", "dqn", "pqn", "encoders"]
PARTS: tuple[Part, ...] = get_args(Part)
DEFAULT_PARTS: tuple[Part, ...] = ("ceilings", "ppo", "dqn", "encoders")

ImageModel = Literal["alexnet", "densenet121", "resnet18", "resnet50", "squeezenet1_0", "vgg16"]
IMAGE_MODELS: tuple[ImageModel, ...] = get_args(ImageModel)
"""torchvision's networks in the table."""


def _unknown_peer(name: str) -> str:
    from agents.benchmark.peers import why_unknown_peer

    return why_unknown_peer(name)


PeerName = Annotated[str, Rule(_unknown_peer)]


@dataclass(frozen=True)
class Measurements:
    """Measurements."""

    parts: tuple[Part, ...] = DEFAULT_PARTS
    """What to measure: ceilings (each part of training alone), ppo, dqn, pqn (whole agents),
    encoders (networks alone)."""
    dqn_num_envs: Annotated[int, Interval(ge=1, le=MAX_ENVS)] = 1
    """Parallel environments of DQN; --num-envs is for the other algorithms."""
    peers: tuple[PeerName, ...] = ("sb3",)
    """What to compare with: sb3, which is stable-baselines3; uncached, which runs a frozen encoder
    for every minibatch. --peers without a name compares with nothing."""
    rounds: Annotated[int, Interval(ge=1, le=1_000)] = 5
    """Samples of each figure; all figures are measured once in each round, in turn."""
    seconds: Annotated[float, Interval(gt=0)] = 5.0
    """Length of a sample, in seconds; a sample is at least one iteration of an agent."""
    encoder_batch: Annotated[int, Interval(ge=1, le=2**20)] = 256
    """Observations of 84x84x4 in a batch of the encoders' table."""
    image_models: tuple[ImageModel, ...] = IMAGE_MODELS
    """torchvision's networks in the encoders' table, on 16 images of 3x224x224; --image-models
    without a name leaves them out."""


@dataclass(frozen=True)
class GpuSuite:
    """GPU suite."""

    suite: Literal["none", "gpu"] = "none"
    """gpu measures everything worth measuring on a GPU within --minutes in place of --parts: the
    most important first, a line for each figure as soon as it is known."""
    minutes: float = 8.0
    """Time limit of --suite in minutes."""
    suite_scale: Scale = "full"
    """Default sizes of --suite: full, or tiny to check quickly that everything runs."""


@dataclass(frozen=True)
class BenchmarkOutput:
    """Output."""

    json: Path | None = None
    """JSON file for all results, by default none; with --suite it is written after each figure."""
    plot: Path | None = None
    """File of a figure, .png, .svg or .pdf; by default none."""
