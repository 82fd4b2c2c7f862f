"""The options of a training run, and what "auto" stands for."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from annotated_types import Interval

from agents.dqn.config import DQNConfig
from agents.hyperparameters import Algorithm, Hyperparameters
from agents.networks.transfer_options import FeatureType, check_transfer
from agents.ppo.config import PPOConfig
from agents.pqn.config import PQNConfig
from envs.checks import ObservationColour
from envs.config import EnvConfig
from envs.errors import UserError
from envs.machine.cores import usable_cores
from envs.protocol import ProtocolName
from rlcnn.config.fields import (
    MAX_ENVS,
    MAX_STEPS,
    WHOLE,
    Arg,
    FrameStack,
    KeepCheckpoints,
    NamedValues,
    ObsSize,
    Period,
    SeedNumber,
    Switch,
    check_options,
    from_json,
)
from rlcnn.config.files import read_config_file
from rlcnn.config.groups import Computation, EncoderMode, Tracking
from rlcnn.runs.directory import RunDirectory
from rlcnn.runs.tracking.tracker import check_tracking

if TYPE_CHECKING:
    from agents.algorithm import AlgorithmSpec

Preset = Literal[
    "fast",
    "zoo",
    "dqn-dopamine",
    "double-dqn",
    "rainbow",
    "qr-dqn",
    "iqn",
    "m-iqn",
    "btr",
    "pqn",
    "rl-games-pong",
    "rl-games-breakout",
]


@dataclass(frozen=True)
class TrainingRun:
    """Run."""

    algo: Algorithm = "ppo"
    """Learning algorithm."""
    preset: Preset = "fast"
    """Defaults of all options: fast (short wall time) and zoo (the Atari setting of
    rl-baselines3-zoo) are for any algorithm; the others are published settings, which also choose
    the algorithm."""
    total_steps: Annotated[int, Interval(ge=1, le=MAX_STEPS)] = 10_000_000
    """Agent steps to train for, over all environments."""
    seed: SeedNumber = 0
    """Seed of everything random, 0 to 2147483647."""
    checkpoint_every: Period = 100_000
    """Steps between two checkpoints; 0 keeps the last state only."""
    keep_checkpoints: KeepCheckpoints = 3
    """Newest checkpoints to keep."""
    save_replay: bool = True
    """Whether DQN's checkpoints contain its replay; without it, a resumed run starts with none."""


@dataclass(frozen=True)
class Environment:
    """Environment."""

    env: str = "ALE/Pong-v5"
    """Id of the environment: an Atari game (ALE/Breakout-v5), or any other in Gymnasium's registry
    with images and discrete actions; module:Id-v0 imports a module first."""
    env_kwargs: NamedValues = field(default_factory=dict)
    """Arguments of the environment, as NAME VALUE pairs: continuous False render_mode rgb_array.
    Atari games take mode, difficulty and render_mode."""
    env_wrapper: Annotated[tuple[str, ...], Arg(metavar="MODULE:WRAPPER", repeatable=True)] = ()
    """Wrapper of every environment. Repeat the option for several wrappers, the innermost first."""
    obs_key: str = ""
    """Key of the image, if observations are a Dict; empty chooses the only image."""
    env_workers: Annotated[int, Interval(ge=0, le=MAX_ENVS)] = 0
    """Processes that step the environments, for slow ones; 0 steps them in this process. An Atari
    game without --env-kwargs and --env-wrapper uses threads instead."""
    num_envs: Annotated[int, Interval(ge=1, le=MAX_ENVS)] = 8
    """Environments that step in parallel."""
    protocol: ProtocolName = "classic"
    """Atari conventions: classic (Mnih 2015) or sticky (Machado 2018)."""
    obs: ObservationColour = "grey"
    """Colours of the observed frames."""
    obs_size: ObsSize = 84
    """Height and width of the observed frames, in pixels."""
    frame_stack: FrameStack = 4
    """Frames in an observation."""


@dataclass(frozen=True)
class EncoderTraining(EncoderMode):
    """Encoder."""

    finetune_factor: Annotated[float, Interval(gt=0)] = 0.1
    """Learning rate of a fine-tuned encoder, divided by that of the other layers."""
    head_factor: Annotated[float, Interval(gt=0)] = 1.0
    """For --mode finetune: learning rate of the first layer behind the encoder, divided by that of
    the other layers."""
    unfreeze_at_step: Period = 0
    """Step at which fine-tuning of the encoder begins; before, it is frozen. 0 begins at once."""
    feature_dtype: FeatureType = "auto"
    """Type in which the features of a frozen encoder, which runs once per frame, are stored; auto
    takes the type that it computes in, fp32 or bf16."""


@dataclass(frozen=True)
class EvaluationSchedule:
    """Evaluation and films."""

    eval_every: Period = 500_000
    """Steps between two evaluations; 0 evaluates at the end only."""
    eval_episodes: Period = 30
    """Whole games in an evaluation; 0 never evaluates."""
    interim_episodes: Period = 0
    """Games in an evaluation before the last one; 0 plays --eval-episodes games."""
    interim_max_steps: Period = 0
    """Agent steps after which a game of an evaluation before the last one ends, with the points so
    far; 0 ends it by the protocol alone."""
    video_every: Annotated[int | None, Interval(ge=0, le=MAX_STEPS), WHOLE] = None
    """Steps between two filmed games; 0 films at the end only. None, the default, films the
    untrained agent, the agent of every evaluation, and the end."""
    video_overlay: bool = False
    """Whether films show beside the game what the agent sees, which pixels its choice depends on,
    its action probabilities or Q values, and its value over time."""


@dataclass(frozen=True)
class TrainingSpeed(Computation):
    """Device and speed."""

    env_groups: int = 1
    """Groups of environments that PPO and PQN step in turn: while the policy chooses actions for
    one group, the others step. Useful if environments wait for a GPU."""
    compile: Switch = "auto"
    """Whether torch compiles the update of PPO or PQN; auto does not, since no gain was
    measured."""
    cuda_graphs: Switch = "auto"
    """Whether a GPU captures acting and updates as CUDA graphs and replays them; auto does."""
    replay_device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where DQN stores its replay; auto takes the training device if it fits there, else the
    host."""
    overlap: Switch = "auto"
    """Whether the next rollout is collected during the update, by the previous policy, except after
    a checkpoint or a film; auto does not."""


# The last base comes first in --help and in a run's config.json.
@dataclass(frozen=True)
class TrainConfig(
    TrainingSpeed, Tracking, EvaluationSchedule, EncoderTraining, Environment, TrainingRun
):
    """A training run. Steps are agent steps, of 4 emulator frames each in Atari games."""

    ppo: PPOConfig = field(default_factory=PPOConfig)
    dqn: DQNConfig = field(default_factory=DQNConfig)
    pqn: PQNConfig = field(default_factory=PQNConfig)

    @property
    def algorithm(self) -> AlgorithmSpec[Any]:
        """The algorithm that learns."""
        # Here, not above: it imports torch, and --help does without.
        from agents.registry import ALGORITHMS

        return ALGORITHMS[self.algo]

    @property
    def environment(self) -> EnvConfig:
        """Which environment is played, and where it steps."""
        return EnvConfig(
            self.env, self.env_kwargs, self.env_wrapper, self.obs_key, self.env_workers
        )

    @property
    def hyperparameters(self) -> Hyperparameters:
        """The section of the algorithm that learns."""
        section: Hyperparameters = getattr(self, self.algo)
        return section

    def with_hyperparameters(self, section: Hyperparameters) -> TrainConfig:
        """The same run with another section of the algorithm that learns."""
        changes: dict[str, Any] = {self.algo: section}
        return replace(self, **changes)

    def to_json(self) -> dict[str, Any]:
        """The configuration as plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> TrainConfig:
        """Reads what :meth:`to_json` wrote; what is missing takes its default.

        Raises:
            UserError: An option is unknown or of the wrong type.
        """
        if values.get("compile") == "graph":
            # A run of version 0.1, whose one option stood for both.
            values = {**values, "compile": "off", "cuda_graphs": "on"}
        return from_json(cls, values)

    def validate(self) -> None:
        """Checks every value that can be checked without making an environment.

        Raises:
            UserError: A value is not valid; the line names it and what was expected.
        """
        check_options(self)
        check_tracking(self.track, self.tracker, self.log_model)
        check_transfer(self)
        if not 1 <= self.env_groups <= self.num_envs:
            raise UserError(
                f"--env-groups {self.env_groups} must be at least 1 and at most {self.num_envs}"
            )
        if self.num_envs % self.env_groups:
            raise UserError(
                f"--env-groups {self.env_groups} must divide --num-envs {self.num_envs}"
            )
        if self.env_groups > 1 and not self.algorithm.groups:
            from agents.registry import ALGORITHMS

            able = " or ".join(name for name, spec in ALGORITHMS.items() if spec.groups)
            raise UserError(f"--env-groups {self.env_groups} is for --algo {able}: expected 1")
        # Those of the other algorithms are not used, and need not be valid.
        check_options(self.hyperparameters, self.algo)
        self.hyperparameters.check_together()
        self.hyperparameters.check_training(self.num_envs, frozen=self.mode == "frozen")

    def resolve(self) -> TrainConfig:
        """The same run with every "auto" replaced by what it stands for on this machine.

        Raises:
            UserError: The device does not exist.
        """
        from rlcnn.accelerate.devices import resolve_device, resolve_precision

        device = resolve_device(self.device)
        precision = resolve_precision(device) if self.precision == "auto" else self.precision
        features = self.feature_dtype
        if features == "auto" and self.mode == "frozen":
            features = "bf16" if precision == "bf16" else "fp32"
        return replace(
            self,
            device=device,
            precision=precision,
            feature_dtype=features,
            compile="on" if self.compile == "on" and self.algorithm.compiles else "off",
            cuda_graphs="off" if self.cuda_graphs == "off" or device == "cpu" else "on",
            overlap="off" if self.overlap == "auto" else self.overlap,
            num_threads=self.num_threads or usable_cores(),
        ).with_defaults()

    def with_defaults(self) -> TrainConfig:
        """The same run with every default filled in that does not depend on the machine.

        They are batch sizes, and the encoder's options that the algorithm expects.
        """
        spec, section = self.algorithm, self.hyperparameters
        expected = spec.encoder_options(section, self.encoder, self.weights)
        options = {**expected, **self.encoder_options}
        return replace(self, encoder_options=options).with_batch_size()

    def with_batch_size(self) -> TrainConfig:
        """The same run with default batch sizes as numbers, which are the same on any machine."""
        sections: dict[str, Any] = {
            name: getattr(self, name).with_defaults(self.num_envs if name == self.algo else None)
            for name in get_args(Algorithm)
        }
        return replace(self, **sections)


def read_config(source: RunDirectory | Path) -> TrainConfig:
    """The configuration of a run, or in a ``config.json`` such as a run writes.

    Raises:
        UserError: the file is missing or damaged, or holds no configuration of a training.
    """

    def missing(document: dict[str, Any]) -> str:
        what = "it is that of a pretraining" if "pretraining" in document else '"config" is missing'
        return f"holds no configuration of an agent's training: {what}"

    return read_config_file(source, "config", TrainConfig.from_json, missing)
