"""The parts of training alone, each as simple as possible, ready for measurements."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch
from ale_py.vector_env import AtariVectorEnv
from gymnasium import spaces
from torch import nn
from torch.nn import functional

from agents.config import TrainConfig
from agents.dqn.objectives import make_objective
from agents.dqn.variant import DQNVariant
from agents.measure.timing import Loop
from agents.networks.heads import Head, PlainHead, make_head
from agents.networks.policies import take_floats
from agents.storage.replay import ReplayBatch
from agents.train.builder import make_train_env
from envs.protocol import get_protocol
from envs.registry import atari_rom
from rlcnn.accelerate.cuda_graphs import WARM_UP_CALLS, make_recorder
from rlcnn.accelerate.devices import prepare_device
from rlcnn.accelerate.gradient_step import gradient_step
from rlcnn.encoders import create_encoder, with_frame_channels
from rlcnn.encoders.blocks import cache_kernels

Step = Callable[[], object]
Arithmetic = Literal["fp32", "bf16", "bf16 weights"]


@dataclass(frozen=True)
class Variant:
    """A way to compute.

    "bf16 weights" keeps the encoder's weights in bfloat16, too, which only inference allows. A
    ``graph`` is replayed as one CUDA graph.
    """

    arithmetic: Arithmetic
    threads: int
    compiled: bool = False
    graph: bool = False

    def __str__(self) -> str:
        """Such as ``bf16, compiled, 2 threads``."""
        how = [name for name in ("compiled", "graph") if getattr(self, name)]
        return ", ".join([self.arithmetic, *how, threads_name(self.threads)])


def threads_name(count: int) -> str:
    """Such as ``2 threads``."""
    return f"{count} thread{'s' * (count != 1)}"


def spaces_of(config: TrainConfig) -> tuple[tuple[int, ...], int]:
    """Observation shape (channels, height, width) and number of actions of a training."""
    with closing(make_train_env(config)) as venv:
        assert isinstance(venv.observation_space, spaces.Box)
        assert isinstance(venv.action_space, spaces.Discrete)
        return venv.observation_space.shape, int(venv.action_space.n)


def emulator_stage(config: TrainConfig, threads: int) -> Loop:
    """ale-py's emulators alone with random actions; units are environment steps."""
    protocol = get_protocol(config.protocol)
    emulator = AtariVectorEnv(
        atari_rom(config.env),
        config.num_envs,
        num_threads=threads,
        max_num_frames_per_episode=protocol.max_episode_steps * protocol.frame_skip,
        repeat_action_probability=protocol.repeat_action_probability,
        full_action_space=protocol.full_action_space,
        autoreset_mode=gym.vector.AutoresetMode.SAME_STEP,
        img_height=config.obs_size,
        img_width=config.obs_size,
        grayscale=config.obs == "grey",
        stack_num=config.frame_stack,
        frameskip=protocol.frame_skip,
        noop_max=protocol.noop_max,
        use_fire_reset=protocol.use_fire_reset,
        reward_clipping=protocol.clip_rewards,
    )
    assert isinstance(emulator.single_action_space, spaces.Discrete)
    actions = _random_actions(config, int(emulator.single_action_space.n))
    emulator.reset(seed=config.seed)
    return Loop(lambda: emulator.step(next(actions)), config.num_envs)


def environment_stage(config: TrainConfig) -> Loop:
    """The same games through the environments of our agents."""
    venv = make_train_env(config)
    assert isinstance(venv.action_space, spaces.Discrete)
    actions = _random_actions(config, int(venv.action_space.n))
    venv.seed(config.seed)
    venv.reset()
    return Loop(lambda: venv.step(next(actions)), config.num_envs, on_close=venv.close)


def _random_actions(config: TrainConfig, count: int) -> itertools.cycle[np.ndarray]:
    rng = np.random.default_rng(config.seed)
    return itertools.cycle(rng.integers(count, size=(1024, config.num_envs)))


class Network(nn.Module):
    """An encoder and one linear layer for all outputs, or the head of DQN's variant."""

    def __init__(
        self, config: TrainConfig, observation_shape: tuple[int, ...], outputs: int, bf16: bool
    ) -> None:
        super().__init__()
        channels = 3 if config.obs == "rgb" else 1
        options = with_frame_channels(config.encoder, config.encoder_options, channels)
        self.encoder = create_encoder(config.encoder, observation_shape, **options)
        variant = config.dqn
        if config.algorithm.replay and not variant.plain:
            self.q_net: Head = make_head(self.encoder.features_dim, outputs, variant)
        else:
            self.q_net = PlainHead(nn.Linear(self.encoder.features_dim, outputs))
        self.bf16 = bf16
        self.encoder.to(memory_format=torch.channels_last)
        take_floats(self, config.algorithm.replay and variant.augments)

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """Observations uint8 (batch, channels, height, width) -> float32 (batch, outputs)."""
        return self.q_net.q_values(self.extract_features(observations))

    def extract_features(self, obs: torch.Tensor) -> torch.Tensor:
        """Observations (batch, channels, height, width) -> float32 (batch, features_dim).

        They are uint8, or float32 of 0 to 255 if DQN's variant augments them.
        """
        kind = obs.device.type
        with torch.autocast(kind, dtype=torch.bfloat16, enabled=self.bf16):
            features = self.encoder(obs)
        return features.float()


@torch.no_grad()
def act(network: Network, observations: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """PPO's actions, sampled from its policy, their values and their log probabilities."""
    logits, values = network(observations).tensor_split([-1], dim=1)
    log_probs = logits.log_softmax(dim=1)
    race = torch.empty_like(log_probs).exponential_()
    actions = (log_probs - race.log()).argmax(dim=1)
    return actions, values, log_probs.gather(1, actions[:, None])


@torch.no_grad()
def act_greedily(network: Network, observations: torch.Tensor) -> torch.Tensor:
    """DQN's actions, and PQN's."""
    return network(observations).argmax(dim=1)


def ppo_loss(
    network: Network,
    observations: torch.Tensor,
    actions: torch.Tensor,
    scalars: torch.Tensor,
    clip_range: float,
    vf_coef: float,
    ent_coef: float,
) -> torch.Tensor:
    """The clipped surrogate objective (Schulman et al. 2017, equation 9).

    The network makes logits and a value, float32 (batch, actions + 1), of observations uint8
    (batch, channels, height, width). Actions are int64 (batch, 1); ``scalars`` are old log
    probabilities, advantages and returns, float32 (3, batch).
    """
    old_log_prob, advantages, returns = scalars
    logits, values = network(observations).tensor_split([-1], dim=1)
    log_probs = logits.log_softmax(dim=1)
    ratio = (log_probs.gather(1, actions).squeeze(1) - old_log_prob).exp()
    advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
    gain = torch.min(advantages * ratio, advantages * clipped).mean()
    entropy = -(log_probs.exp() * log_probs).sum(dim=1).mean()
    return vf_coef * functional.mse_loss(values.squeeze(1), returns) - gain - ent_coef * entropy


def dqn_loss(
    network: Network,
    target: Network,
    batch: ReplayBatch,
    variant: DQNVariant,
    generator: torch.Generator | None,
) -> torch.Tensor:
    """The loss of our DQN on transitions that lie on the device."""
    objective = make_objective(variant)
    prepared = objective.prepare(target, batch, generator)
    return objective.loss(network, prepared, generator).loss.mean()


def pqn_loss(
    network: Network, observations: torch.Tensor, actions: torch.Tensor, returns: torch.Tensor
) -> torch.Tensor:
    """The loss of PQN: half the squared distance of Q values from returns, float32 (batch,)."""
    values = network(observations).gather(1, actions).squeeze(1)
    return 0.5 * functional.mse_loss(values, returns)


def inference_stage(
    config: TrainConfig, observation_shape: tuple[int, ...], actions: int, variant: Variant
) -> Loop:
    """Actions for observations that lie on the device; units are observations.

    Observations have the shape (channels, height, width).
    """
    network = _network(config, observation_shape, actions, variant)
    # Once, as our actors do.
    cache_kernels(network, torch.float32 if variant.arithmetic == "fp32" else torch.bfloat16)
    observations = _observations(config, observation_shape, config.num_envs)
    function: Callable[..., object] = act_greedily if config.algorithm.action_values else act
    if variant.compiled:
        function = torch.compile(function, dynamic=False)
    return _loop(lambda: function(network, observations), config.num_envs, config, variant)


def update_stage(
    config: TrainConfig, observation_shape: tuple[int, ...], actions: int, variant: Variant
) -> Loop:
    """Learning from a minibatch that lies on the device; units are samples.

    One piece is forward, loss, backward, gradient clipping and fused Adam, for PQN too.
    """
    network = _network(config, observation_shape, actions, variant)
    options: Any = config.hyperparameters
    size = options.batch_size
    observations = _observations(config, observation_shape, size)
    taken = torch.randint(actions, (size, 1), device=config.device)
    loss: Callable[..., torch.Tensor]
    arguments: tuple[object, ...]
    if config.algorithm.replay:
        rewards, discounts, weights = torch.rand(3, size, device=config.device)
        target = _network(config, observation_shape, actions, variant)
        following = _observations(config, observation_shape, size)
        actions_taken = taken.squeeze(1)
        batch = ReplayBatch(
            observations, actions_taken, rewards, following, discounts, weights, actions_taken
        )
        generator = torch.Generator(config.device) if config.dqn.draws else None
        loss, arguments = dqn_loss, (network, target, batch, config.dqn, generator)
    elif config.algorithm.action_values:
        returns = torch.randn(size, device=config.device)
        loss, arguments = pqn_loss, (network, observations, taken, returns)
    else:
        scalars = torch.randn(3, size, device=config.device)
        constants = (options.clip_range, options.vf_coef, options.ent_coef)
        loss, arguments = ppo_loss, (network, observations, taken, scalars, *constants)
    if variant.compiled:
        loss = torch.compile(loss, dynamic=False)
    parameters = list(network.parameters())
    # A learning rate of 0 costs the same and keeps the work the same in every step.
    optimizer = torch.optim.Adam(parameters, lr=0.0, fused=True)

    def learn() -> None:
        gradient_step(loss(*arguments), optimizer, parameters, options.max_grad_norm)

    return _loop(learn, size, config, variant)


def _network(
    config: TrainConfig, observation_shape: tuple[int, ...], actions: int, variant: Variant
) -> Network:
    # As our agents do; torch would otherwise round float32 differently.
    assert config.precision != "auto"
    prepare_device(config.device, config.precision)
    # PPO's network has a value beside the logits.
    outputs = actions + (not config.algorithm.action_values)
    network = Network(config, observation_shape, outputs, bf16=variant.arithmetic != "fp32")
    if variant.arithmetic == "bf16 weights":
        network.encoder.to(torch.bfloat16)
    return network.to(config.device)


def _observations(config: TrainConfig, shape: tuple[int, ...], count: int) -> torch.Tensor:
    return torch.randint(256, (count, *shape), dtype=torch.uint8, device=config.device)


def _loop(step: Step, units: int, config: TrainConfig, variant: Variant) -> Loop:
    if variant.graph:
        recorder = make_recorder(torch.device(config.device))
        assert recorder is not None
        for _ in range(WARM_UP_CALLS):
            recorder.warm_up(step)
        step, _ = recorder.capture(step, ())
    return Loop(step, units, config.device, variant.threads)
