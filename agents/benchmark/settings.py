"""What a benchmark is told."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal

from agents.benchmark.encoder_table import IMAGE_MODELS
from agents.benchmark.peers import list_peers
from agents.config import TrainConfig, preset_config
from agents.registry import ALGORITHMS, Algorithm
from envs.errors import UserError, nearest
from envs.registry import atari_rom
from rlcnn.accelerate.compilation import can_compile
from rlcnn.config.fields import MAX_ENVS

Part = Literal["ceilings", "ppo", "dqn", "encoders"]
PARTS: tuple[Part, ...] = ("ceilings", "ppo", "dqn", "encoders")

_MOST_LEARNING_STARTS = 1_000


@dataclass(frozen=True)
class Settings:
    """A benchmark."""

    train: TrainConfig = field(default_factory=lambda: preset_config("zoo", "ppo"))
    """What both algorithms have in common, and the hyperparameters of each."""
    dqn_num_envs: int = 1
    """Environments of DQN; those of PPO are ``train.num_envs``."""
    parts: tuple[Part, ...] = PARTS
    """What to measure."""
    peers: tuple[str, ...] = ("sb3",)
    """Other libraries to measure beside ours."""
    rounds: int = 5
    """Samples of each figure."""
    seconds: float = 5.0
    """Length of a sample, about."""
    encoder_batch: int = 256
    """Observations in a batch of the encoders' table."""
    image_models: tuple[str, ...] = IMAGE_MODELS
    """torchvision's networks in it."""

    @property
    def algorithms(self) -> list[Algorithm]:
        """Those chosen; ceilings alone are those of both."""
        chosen = [algo for algo in ALGORITHMS if algo in self.parts]
        return chosen or (list(ALGORITHMS) if "ceilings" in self.parts else [])

    @property
    def compile_ceilings(self) -> bool:
        """Whether compiled variants of the ceilings are tried."""
        # On a GPU a variant that cannot be compiled is told of and left out.
        on_gpu = self.train.resolve().device != "cpu"
        return self.train.compile in ("auto", "on") and (on_gpu or can_compile())

    def agent_config(self, algo: Algorithm) -> TrainConfig:
        """The training to be measured, with every "auto" resolved, in its steady state.

        DQN plays 1,000 steps at random at most, instead of its ``learning_starts``, and explores
        with its final epsilon from the first: so it acts by its network and learns as it does for
        nearly all of a training.

        Raises:
            UserError: a value is not valid.
        """
        num_envs = {"dqn": self.dqn_num_envs}.get(algo, self.train.num_envs)
        config = replace(self.train, algo=algo, num_envs=num_envs)
        config.validate()
        dqn = replace(
            config.dqn,
            learning_starts=min(config.dqn.learning_starts, _MOST_LEARNING_STARTS),
            exploration_initial_eps=config.dqn.exploration_final_eps,
        )
        return replace(config, dqn=dqn).resolve()

    def validate(self) -> None:
        """Checks every value.

        Raises:
            UserError: a value is not valid; the line names it and what was expected.
        """
        if not self.parts:
            raise UserError(f"--parts names nothing to measure: expected any of {', '.join(PARTS)}")
        _check_known("parts", self.parts, PARTS)
        _check_known("peers", self.peers, list_peers())
        _check_known("image-models", self.image_models, IMAGE_MODELS)
        _check_range("dqn-num-envs", self.dqn_num_envs, 1, MAX_ENVS)
        _check_range("rounds", self.rounds, 1, 1_000)
        _check_range("encoder-batch", self.encoder_batch, 1, 2**20)
        if not 0 < self.seconds < math.inf:
            raise UserError(f"--seconds {self.seconds} must be finite and more than 0")
        atari_rom(self.train.env)
        for algo in self.algorithms:
            self.agent_config(algo)


def _check_known(option: str, values: tuple[str, ...], known: tuple[str, ...] | list[str]) -> None:
    for value in values:
        if value not in known:
            raise UserError(
                f'--{option} "{value}" is unknown: expected any of {", ".join(known)}.'
                f"{nearest(value, known)}"
            )


def _check_range(option: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise UserError(f"--{option} {value} must be at least {least} and at most {most}")
