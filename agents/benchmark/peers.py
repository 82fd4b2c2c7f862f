"""Other libraries' agents by name, for measurements beside ours with the same settings.

To add one, write a function under :func:`register_peer` in a module that the caller imports.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import ale_py
import gymnasium as gym
from stable_baselines3.common.env_util import make_atari_env
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecFrameStack

from agents.config import TrainConfig
from agents.measure.learners import Learner, ModelLearner, our_agent
from envs.errors import UserError, nearest
from envs.protocol import get_protocol
from rlcnn.accelerate.memory import available_memory
from rlcnn.config.fields import MAX_STEPS
from rlcnn.sb3 import EncoderExtractor

gym.register_envs(ale_py)

Variants = dict[str, Callable[[], Learner]]
Peer = Callable[[TrainConfig], Variants]

_PEERS: dict[str, Peer] = {}


def register_peer(name: str) -> Callable[[Peer], Peer]:
    """Decorator that registers a library's agents as ``name``.

    The function takes a resolved training and returns the library's ways to run it, by name. Each
    makes a learner in its own process and must therefore be picklable. The benchmark tries each
    with several numbers of threads and measures the fastest. The function raises ``UserError`` if
    the library cannot run the training.

    Raises:
        ValueError: the name is taken.
    """

    def register(peer: Peer) -> Peer:
        if name == "ours" or name in _PEERS:
            raise ValueError(f'a peer "{name}" is already registered')
        _PEERS[name] = peer
        return peer

    return register


def list_peers() -> list[str]:
    """Names of all peers, sorted."""
    return sorted(_PEERS)


def peer_variants(name: str, config: TrainConfig) -> Variants:
    """The peer's ways to run ``config``, by name.

    Raises:
        UserError: the peer is unknown, or it cannot run the training.
    """
    if reason := why_unknown_peer(name):
        raise UserError(f"--peers {reason}")
    return _PEERS[name](config)


def why_unknown_peer(name: str) -> str:
    """What is wrong with a peer's name; nothing if a peer has it."""
    if name in _PEERS:
        return ""
    return f'"{name}" is unknown: expected one of {", ".join(list_peers())}.{nearest(name, _PEERS)}'


@register_peer("sb3")
def stable_baselines3(config: TrainConfig) -> Variants:
    """stable-baselines3's own PPO and DQN, set up for Atari as in its documentation.

    ``make_atari_env`` and ``VecFrameStack`` with the same protocol; "CnnPolicy" in float32 with its
    own NatureCNN, or with another of our encoders as features extractor. A DQN replay that does not
    fit into memory is made smaller. It has neither PQN nor variants of DQN.

    Raises:
        UserError: the observations are in colour.
    """
    if config.algorithm.baseline is None or not config.hyperparameters.in_baseline:
        return {}
    if config.obs != "grey":
        raise UserError("stable-baselines3's Atari wrappers make grey observations: use --obs grey")
    note = ""
    if config.algorithm.replay:
        buffer_size = config.dqn.buffer_size
        left = available_memory("cpu")
        # It stores every observation and every next observation whole.
        each = 2 * config.frame_stack * config.obs_size**2
        if left is not None and left < each * buffer_size:
            buffer_size = left // each
            note = f", a replay of {buffer_size:,}"
            config = replace(config, dqn=replace(config.dqn, buffer_size=buffer_size))
    return {
        f"{kind.__name__}{note}": partial(_sb3_agent, config, kind)
        for kind in (DummyVecEnv, SubprocVecEnv)
    }


@register_peer("uncached")
def uncached(config: TrainConfig) -> Variants:
    """Our own agent on the same frozen encoder, which runs again for every minibatch.

    It stores frames instead of features: its encoder is to be unfrozen at a step that never comes.

    Raises:
        UserError: the encoder is not frozen, so there is no cache to compare with.
    """
    if config.mode != "frozen":
        raise UserError(
            f"--peers uncached is what --mode frozen is measured beside, not --mode {config.mode}"
        )
    never = replace(config, mode="finetune", unfreeze_at_step=MAX_STEPS, feature_dtype="auto")
    return {f"{config.precision}, frames stored": partial(our_agent, never)}


def _sb3_agent(config: TrainConfig, kind: type[DummyVecEnv] | type[SubprocVecEnv]) -> Learner:
    protocol = get_protocol(config.protocol)
    policy: dict[str, Any] = {}
    if config.encoder != "nature" or config.encoder_options:
        encoder = {"encoder": config.encoder, "encoder_options": config.encoder_options}
        policy = {
            "features_extractor_class": EncoderExtractor,
            "features_extractor_kwargs": encoder,
            "net_arch": [],
        }
    venv = make_atari_env(
        # The prefix makes each process of environments register the games.
        f"ale_py:{config.env}",
        config.num_envs,
        seed=config.seed,
        vec_env_cls=kind,
        # Equal to the game's NoFrameskip-v4, which not every game has.
        env_kwargs={
            "frameskip": 1,
            "repeat_action_probability": 0.0,
            "full_action_space": protocol.full_action_space,
        },
        wrapper_kwargs={
            "noop_max": protocol.noop_max,
            "frame_skip": protocol.frame_skip,
            "screen_size": config.obs_size,
            "terminal_on_life_loss": protocol.terminal_on_life_loss,
            "clip_reward": protocol.clip_rewards,
            "action_repeat_probability": protocol.repeat_action_probability,
        },
    )
    try:
        baseline: Any = config.algorithm.baseline
        model = baseline(
            "CnnPolicy",
            VecFrameStack(venv, config.frame_stack),
            seed=config.seed,
            device=config.device,
            policy_kwargs=policy,
            **sb3_hyperparameters(config),
        )
        return ModelLearner(model, config)
    except BaseException:
        venv.close()
        raise


def sb3_hyperparameters(config: TrainConfig) -> dict[str, Any]:
    """The arguments of stable-baselines3's PPO or DQN for the same training.

    Its DQN counts ``train_freq`` in steps of the vector environment and makes ``gradient_steps``
    for any number of environments; both are set so that it makes as many updates per step as ours.
    """
    options = config.hyperparameters.in_vector_steps(config.num_envs).to_arguments()
    assert config.algorithm.baseline is not None
    known = inspect.signature(config.algorithm.baseline).parameters
    return {name: value for name, value in options.items() if name in known}
