"""Everything a training run is told, as plain data; presets of it; what "auto" stands for."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from agents.networks.transfer_options import check_transfer
from agents.storage.codecs import FeatureType
from envs.errors import UserError
from envs.machine.cores import usable_cores
from envs.protocol import PROTOCOLS
from rlcnn.accelerate.devices import PRECISIONS, resolve_device, resolve_precision
from rlcnn.config.fields import EncoderName, check_choice, check_range, dataclass_of, option_name
from rlcnn.encoders import why_unknown
from rlcnn.runs.directory import RunDirectory
from rlcnn.runs.files import read_json

Algorithm = Literal["ppo", "dqn"]
Preset = Literal["fast", "zoo"]
Schedule = Literal["constant", "linear"]
MAX_SEED = 2**31 - 1
MAX_THREADS = 1024
MAX_COUNT = 2**31 - 1
_BATCH_SIZE = 256  # rl-zoo; Schulman et al. 2017, table 5
# Beyond these nothing is learned any more, and emulators or torch fail in ways of their own.
LARGEST = {
    "total_steps": 10**12,
    "num_envs": 4096,
    "obs_size": 1024,
    "frame_stack": 64,
    "keep_checkpoints": 10**6,
}


@dataclass(frozen=True)
class PPOConfig:
    """Hyperparameters of PPO, under stable-baselines3's names."""

    learning_rate: float = 2.5e-4
    """Adam's step size."""
    learning_rate_schedule: Schedule = "linear"
    """"linear" anneals the learning rate to 0 over the run."""
    n_steps: int = 128
    """Steps of each environment between two updates."""
    batch_size: int = 0
    """Transitions in a minibatch; must divide num-envs x n-steps. 0 takes 256 where it does, and
    otherwise a quarter of them."""
    n_epochs: int = 4
    """Passes over each rollout."""
    gamma: float = 0.99
    """Discount factor."""
    gae_lambda: float = 0.95
    """Lambda of generalised advantage estimation."""
    clip_range: float = 0.1
    """How far the probability ratio may leave 1 before its gain is clipped."""
    clip_range_schedule: Schedule = "linear"
    """"linear" anneals the clip range to 0 over the run."""
    clip_range_vf: float | None = None
    """The same for value predictions, in units of return; None does not clip them."""
    normalize_advantage: bool = True
    """Whether each minibatch's advantages are brought to mean 0 and deviation 1."""
    ent_coef: float = 0.01
    """Weight of the entropy bonus."""
    ent_coef_schedule: Schedule = "constant"
    """"linear" anneals the weight of the entropy bonus to 0 over the run."""
    vf_coef: float = 0.5
    """Weight of the value loss."""
    max_grad_norm: float = 0.5
    """Largest gradient norm; longer gradients are scaled down to it."""
    target_kl: float | None = None
    """Divergence at which an update stops early; None never stops."""


@dataclass(frozen=True)
class DQNConfig:
    """Hyperparameters of DQN, under stable-baselines3's names; steps are agent steps."""

    learning_rate: float = 1e-4
    """Adam's step size."""
    learning_rate_schedule: Schedule = "constant"
    """"linear" anneals the learning rate to 0 over the run."""
    buffer_size: int = 100_000
    """Transitions kept for replay, over all environments."""
    learning_starts: int = 100_000
    """Steps of random play before the first update."""
    batch_size: int = 32
    """Transitions in a minibatch."""
    tau: float = 1.0
    """Share of the online network in the target at each of its updates; 1 copies it."""
    gamma: float = 0.99
    """Discount factor."""
    train_freq: int = 4
    """Environment steps (over all environments) for each round of updates."""
    gradient_steps: int = 1
    """Updates in a round; -1 makes as many as steps."""
    n_steps: int = 1
    """Rewards summed before bootstrapping (n-step returns)."""
    target_update_interval: int = 1_000
    """Environment steps between two updates of the target network."""
    exploration_fraction: float = 0.1
    """Share of the run over which epsilon falls."""
    exploration_initial_eps: float = 1.0
    """Epsilon at the start."""
    exploration_final_eps: float = 0.01
    """Epsilon after that."""
    max_grad_norm: float = 10.0
    """Largest gradient norm; longer gradients are scaled down to it."""


@dataclass(frozen=True)
class TrainConfig:
    """A training run. Steps are agent steps, of 4 emulator frames each in Atari games."""

    env: str = "ALE/Pong-v5"
    """Any Atari game ("ALE/Breakout-v5") or Gymnasium id with images and discrete actions."""
    algo: Algorithm = "ppo"
    """Learning algorithm."""
    encoder: EncoderName = "nature"
    """Convolutional encoder, by name; a classification network of torchvision cut at a node,
    resnet18:layer2; or timm:NAME:NODE."""
    encoder_options: dict[str, int | float | bool | str] = field(default_factory=dict)
    """Options of the encoder, as NAME VALUE pairs: width 2 pooling mean."""
    weights: str = "none"
    """What the encoder starts from: none, imagenet, a file (safetensors or .pth), or the directory
    of a run."""
    mode: Literal["train", "finetune", "frozen"] = "train"
    """What becomes of the encoder: train learns it as the rest; finetune at a fraction of the rate;
    frozen not at all, and each frame passes it once."""
    finetune_factor: float = 0.1
    """Fine-tuned encoder's learning rate, as a factor of the rest's."""
    unfreeze_from: str = ""
    """Node of the encoder from which on it is fine-tuned, such as layer2 or trunk.4; what comes
    before stays as it is. Empty fine-tunes all of it."""
    unfreeze_at_step: int = 0
    """Step from which on the encoder is fine-tuned; it stays as it is before. 0 begins at once."""
    feature_dtype: FeatureType = "auto"
    """What a frozen encoder's features are stored in; auto takes what it computes in, fp32 or
    bf16."""
    total_steps: int = 10_000_000
    """Agent steps to train for, over all environments."""
    seed: int = 0
    """Seed of everything random, 0 to 2147483647."""
    num_envs: int = 8
    """Environments played side by side."""
    env_groups: int = 1
    """Groups of environments that PPO plays in turn: while the policy acts for one group, the
    others play. For a GPU that the emulators wait for."""
    num_threads: int = 0
    """CPU threads of the emulator and of torch; 0 takes every core this process may use. In
    bfloat16 torch takes fewer while other programs compute."""
    protocol: str = "classic"
    """Atari conventions: classic (Mnih 2015) or sticky (Machado 2018)."""
    obs: Literal["grey", "rgb"] = "grey"
    """Colours of the observed frames."""
    obs_size: int = 84
    """Height and width of the observed frames, in pixels."""
    frame_stack: int = 4
    """Frames in an observation."""
    device: str = "auto"
    """auto (the GPU where there is one), cpu, cuda, cuda:1 ..."""
    precision: Literal["auto", "fp32", "tf32", "bf16"] = "auto"
    """Arithmetic of the encoder; auto takes bf16 where the device is fast at it. tf32 is float32
    whose products a GPU rounds to 10 bits of mantissa."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Whether torch compiles PPO's update; auto does not: nothing was gained by it."""
    cuda_graphs: Literal["auto", "on", "off"] = "auto"
    """Whether a GPU captures acting and updates as CUDA graphs and replays them; auto does."""
    replay_device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where DQN stores its replay; auto takes the training device if it fits there, else the
    host."""
    overlap: Literal["auto", "on", "off"] = "auto"
    """Whether the agent plays on while it learns from what came before, by a policy one update
    older (but for what follows a checkpoint or a film); auto does not."""
    track: Literal["disabled", "offline", "online"] = "offline"
    """Weights & Biases; offline needs no account, and is uploaded by `wandb sync` later. WANDB_MODE
    and WANDB_DISABLED, where they are set, say the default."""
    project: str = "rlcnn"
    """Project in Weights & Biases."""
    preset: Preset = "fast"
    """Defaults of all options: fast (short wall time) or zoo (the literature's Atari setting)."""
    eval_every: int = 500_000
    """Steps between two evaluations; 0 evaluates at the end only."""
    eval_episodes: int = 30
    """Whole games in an evaluation; 0 never evaluates."""
    video_every: int = 1_000_000
    """Steps between two filmed games; 0 films at the end only."""
    checkpoint_every: int = 100_000
    """Steps between two checkpoints; 0 keeps the last state only."""
    keep_checkpoints: int = 3
    """Newest checkpoints to keep."""
    save_replay: bool = True
    """Whether DQN's checkpoints hold its replay memory; without it, it fills anew at a resume."""
    ppo: PPOConfig = field(default_factory=PPOConfig)
    """Hyperparameters of PPO."""
    dqn: DQNConfig = field(default_factory=DQNConfig)
    """Hyperparameters of DQN."""

    def to_json(self) -> dict[str, Any]:
        """The configuration as plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> TrainConfig:
        """Reads what :meth:`to_json` wrote; what is missing takes its default.

        Raises:
            UserError: An option is unknown or of the wrong type.
        """
        values = dict(values)
        if values.get("compile") == "graph":
            # A run of version 0.1, whose one option stood for both.
            values.update(compile="off", cuda_graphs="on")
        for name, section in (("ppo", PPOConfig), ("dqn", DQNConfig)):
            values[name] = dataclass_of(section, values.get(name, {}), f"{name}.")
        return dataclass_of(cls, values, "")

    def validate(self) -> None:
        """Checks every value that can be judged without making an environment.

        Raises:
            UserError: A value is not valid; the line names it and what was expected.
        """
        check_choice("algo", self.algo, ("ppo", "dqn"))
        check_choice("preset", self.preset, ("fast", "zoo"))
        if reason := why_unknown(self.encoder):
            raise UserError(f'--encoder "{self.encoder}" is unknown: {reason}')
        check_choice("protocol", self.protocol, sorted(PROTOCOLS))
        check_choice("obs", self.obs, ("grey", "rgb"))
        check_choice("precision", self.precision, ("auto", *PRECISIONS))
        for name in ("compile", "cuda_graphs", "overlap"):
            check_choice(name, getattr(self, name), ("auto", "on", "off"))
        check_choice("replay_device", self.replay_device, ("auto", "cpu", "cuda"))
        check_choice("track", self.track, ("disabled", "offline", "online"))
        check_choice("mode", self.mode, ("train", "finetune", "frozen"))
        check_choice("feature_dtype", self.feature_dtype, get_args(FeatureType))
        for name, most in LARGEST.items():
            check_range(name, getattr(self, name), least=1, most=most)
        check_transfer(self)
        for name in ("eval_every", "eval_episodes", "video_every", "checkpoint_every"):
            check_range(name, getattr(self, name), least=0, most=LARGEST["total_steps"])
        check_range("env_groups", self.env_groups, least=1, most=self.num_envs)
        if self.num_envs % self.env_groups:
            raise UserError(
                f"--env-groups {self.env_groups} must divide --num-envs {self.num_envs}"
            )
        if self.env_groups > 1 and self.algo != "ppo":
            raise UserError(f"--env-groups {self.env_groups} is for --algo ppo: expected 1")
        check_range("num_threads", self.num_threads, least=0, most=MAX_THREADS)
        check_range("seed", self.seed, least=0, most=MAX_SEED)
        section: PPOConfig | DQNConfig = self.ppo if self.algo == "ppo" else self.dqn
        _check_hyperparameters(self.algo, dataclasses.asdict(section))

    def resolve(self) -> TrainConfig:
        """The same run with every "auto" replaced by what it stands for on this machine.

        Raises:
            UserError: The device does not exist.
        """
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
            compile="on" if self.compile == "on" and self.algo == "ppo" else "off",
            cuda_graphs="off" if self.cuda_graphs == "off" or device == "cpu" else "on",
            overlap="off" if self.overlap == "auto" else self.overlap,
            num_threads=self.num_threads or usable_cores(),
        ).with_batch_size()

    def with_batch_size(self) -> TrainConfig:
        """The same run with PPO's default batch size as a number, which is the same anywhere."""
        batch_size = self.ppo.batch_size or self._default_batch_size()
        return replace(self, ppo=replace(self.ppo, batch_size=batch_size))

    def _default_batch_size(self) -> int:
        rollout = self.num_envs * self.ppo.n_steps
        # DQN has no rollout: the number is without effect, but compared between runs.
        if self.algo != "ppo" or rollout % _BATCH_SIZE == 0:
            return _BATCH_SIZE
        # Fewer minibatches where the rollout cannot be quartered, or a quarter has no spread.
        parts = (4, 3, 2)
        return next((rollout // n for n in parts if rollout % n == 0 and rollout >= 2 * n), rollout)


# Sources: "zoo" is rl-baselines3-zoo, hyperparams/ppo.yml and dqn.yml, section "atari"; "sb3" the
# default of stable-baselines3 2.9, which the zoo leaves as it is.
ZOO = TrainConfig(
    preset="zoo",
    total_steps=10_000_000,  # zoo
    num_envs=8,  # zoo
    ppo=PPOConfig(
        learning_rate=2.5e-4,  # zoo; Schulman et al. 2017, table 5
        learning_rate_schedule="linear",  # zoo; Schulman et al. 2017, table 5
        n_steps=128,  # zoo; Schulman et al. 2017, table 5
        batch_size=0,  # of 8 environments 256: zoo; Schulman et al. 2017, table 5
        n_epochs=4,  # zoo; 3 in Schulman et al. 2017
        gamma=0.99,  # sb3; Schulman et al. 2017, table 5
        gae_lambda=0.95,  # sb3; Schulman et al. 2017, table 5
        clip_range=0.1,  # zoo; Schulman et al. 2017, table 5
        clip_range_schedule="linear",  # zoo; Schulman et al. 2017, table 5
        clip_range_vf=None,  # sb3
        normalize_advantage=True,  # sb3
        ent_coef=0.01,  # zoo; Schulman et al. 2017, table 5
        ent_coef_schedule="constant",  # zoo; Schulman et al. 2017, table 5
        vf_coef=0.5,  # zoo; 1 in Schulman et al. 2017
        max_grad_norm=0.5,  # sb3
        target_kl=None,  # sb3
    ),
    dqn=DQNConfig(
        learning_rate=1e-4,  # zoo
        learning_rate_schedule="constant",  # zoo
        buffer_size=100_000,  # zoo; 1,000,000 in Mnih et al. 2015
        learning_starts=100_000,  # zoo; 50,000 in Mnih et al. 2015
        batch_size=32,  # zoo; Mnih et al. 2015, extended data table 1
        tau=1.0,  # sb3
        gamma=0.99,  # sb3; Mnih et al. 2015, extended data table 1
        train_freq=4,  # zoo; Mnih et al. 2015, extended data table 1
        gradient_steps=1,  # zoo
        n_steps=1,  # sb3; Mnih et al. 2015
        target_update_interval=1_000,  # zoo; 10,000 updates in Mnih et al. 2015
        exploration_fraction=0.1,  # zoo: 1,000,000 steps of its run; so in Mnih et al. 2015
        exploration_initial_eps=1.0,  # sb3; Mnih et al. 2015, extended data table 1
        exploration_final_eps=0.01,  # zoo; 0.1 in Mnih et al. 2015
        max_grad_norm=10.0,  # sb3
    ),
)

# Chosen on two cores without a GPU, by runs on Pong; docs/results.md shows what it gives.
FAST = replace(
    ZOO,
    preset="fast",
    total_steps=2_000_000,
    num_envs=32,
    # Against the zoo's: short rollouts of many environments, so that as many transitions come
    # from newer policies; four times the learning rate, annealed over the shorter run; and an
    # entropy bonus that is annealed with it: kept, it stops the policy from deciding before the
    # run ends, and a smaller one from the start lets it settle for too little.
    ppo=replace(
        ZOO.ppo,
        learning_rate=1e-3,
        n_steps=32,
        clip_range_schedule="constant",
        ent_coef_schedule="linear",
    ),
    dqn=replace(ZOO.dqn, learning_starts=20_000),
)


def preset_config(preset: Preset, algo: Algorithm) -> TrainConfig:
    """All defaults of a preset for an algorithm.

    Raises:
        UserError: There is no such preset.
    """
    check_choice("preset", preset, ("fast", "zoo"))
    check_choice("algo", algo, ("ppo", "dqn"))
    config = replace({"zoo": ZOO, "fast": FAST}[preset], algo=algo)
    if algo == "dqn":
        # Single-environment DQN is the literature's; several in lockstep keep the cores busy.
        config = replace(config, num_envs=1 if preset == "zoo" else 8)
    return config


def read_config(source: RunDirectory | Path) -> TrainConfig:
    """The configuration of a run, or in a ``config.json`` such as a run writes.

    Raises:
        UserError: the file is missing or damaged, or holds no configuration of a training.
    """
    if isinstance(source, RunDirectory):
        document, path = source.config, source.path / "config.json"
    else:
        if not source.is_file():
            inside = source / "config.json"
            hint = f' Did you mean "{inside}"?' if inside.is_file() else ""
            raise UserError(f"configuration {source} is not a file.{hint}")
        document, path = read_json(source), source
    if not isinstance(document.get("config"), dict):
        raise UserError(f'{path} holds no training configuration: "config" is missing')
    try:
        config = TrainConfig.from_json(document["config"])
        config.validate()
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return config


_POSITIVE = {
    "n_steps",
    "batch_size",
    "n_epochs",
    "buffer_size",
    "train_freq",
    "gradient_steps",
    "target_update_interval",
}
_FRACTIONS = {
    "gamma",
    "gae_lambda",
    "tau",
    "exploration_fraction",
    "exploration_initial_eps",
    "exploration_final_eps",
}


def _check_hyperparameters(algo: str, values: dict[str, Any]) -> None:
    for name, value in values.items():
        option = f"{algo}.{name}"
        if name.endswith("_schedule"):
            check_choice(option, value, ("constant", "linear"))
        elif (name == "gradient_steps" and value == -1) or (
            option == "ppo.batch_size" and value == 0
        ):
            continue
        elif name in _POSITIVE:
            check_range(option, value, least=1, most=MAX_COUNT)
        elif name in _FRACTIONS:
            check_range(option, value, least=0, most=1)
            if name == "exploration_fraction" and value == 0:
                raise UserError(f"{option_name(option)} 0 is no time to explore in: expected more")
        elif name == "clip_range_vf" and value == 0:
            raise UserError(f"{option_name(option)} 0 lets no value change: expected more, or None")
        elif value is not None and not isinstance(value, bool):
            check_range(option, value, least=0)
