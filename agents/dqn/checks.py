"""Arguments that DQN refuses, each in one line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stable_baselines3 import DQN
from stable_baselines3.common.type_aliases import TrainFreq, TrainFrequencyUnit
from stable_baselines3.common.vec_env import VecNormalize

from agents.dqn.variant import ADAM_EPS, DQNVariant
from agents.sb3.arguments import adam_arguments, check_count
from agents.storage.codecs import PixelCodec
from agents.storage.prioritized import Priorities
from agents.storage.replay import FrameReplay
from envs.errors import UserError
from envs.stacking import FrameStacking

_LEAST = {
    "gradient_steps": -1,
    "buffer_size": 1,
    "batch_size": 1,
    "n_steps": 1,
    "target_update_interval": 1,
    "learning_starts": 0,
}


def check_buffer(buffer_class: Any, buffer_kwargs: Any, optimize_memory_usage: bool) -> None:
    """Refuses stable-baselines3's replay buffers by a UserError."""
    if buffer_class is not None or buffer_kwargs:
        raise UserError("replay_buffer_class is not supported: frames are stored by our own")
    if optimize_memory_usage:
        raise UserError("optimize_memory_usage is not needed: every frame is stored once anyway")


def check_counts(model: DQN) -> None:
    """Refuses arguments that are no counts, and ``train_freq`` in episodes, by a UserError."""
    assert isinstance(model.train_freq, TrainFreq)
    if model.train_freq.unit != TrainFrequencyUnit.STEP:
        raise UserError("train_freq in episodes is not supported: it counts environment steps")
    check_count("train_freq", model.train_freq.frequency)
    for name, least in _LEAST.items():
        check_count(name, getattr(model, name), least)


def policy_arguments(variant: DQNVariant, given: Mapping[str, Any]) -> dict[str, Any]:
    """What a variant adds to the policy's arguments that were ``given``.

    A UserError says that they contradict each other.
    """
    if "head" in given:
        raise UserError("policy_kwargs must not have head: it is an argument of DQN itself")
    added: dict[str, Any] = {} if variant.plain else {"head": variant}
    return {**added, **adam_arguments(variant.adam_eps, ADAM_EPS, given)}


def check_rewards(normalize: VecNormalize | None) -> None:
    """Refuses rewards whose scale changes while they are stored, by a UserError."""
    if normalize is not None and normalize.norm_reward:
        raise UserError(
            "VecNormalize is not supported for DQN: the scale of its rewards changes while"
            " they are stored; clip or scale the rewards in the environment instead"
        )


def priorities(variant: DQNVariant) -> Priorities | None:
    """The options of prioritised replay; None without it."""
    if not variant.prioritized:
        return None
    return Priorities(*(getattr(variant, f"priority_{name}") for name in Priorities._fields))


def check_replay(
    replay: Any, stacking: FrameStacking, n_envs: int, variant: DQNVariant
) -> FrameReplay:
    """The replay; a UserError refuses one that does not fit the environments or the variant."""
    if not isinstance(replay, FrameReplay):
        raise UserError(
            f"replay_buffer must be the replay of an agents.DQN, not {type(replay).__name__}"
        )
    stored = replay.codec.frame_stacking
    if stored != stacking:
        raise UserError(
            f"the replay holds stacks of {stored}, the environment now makes {stacking}"
        )
    if replay.sampler.uses_priorities != variant.prioritized:
        has = "has" if replay.sampler.uses_priorities else "lacks"
        raise UserError(f"the replay {has} priorities, unlike prioritized={variant.prioritized}")
    if variant.augments and not isinstance(replay.codec, PixelCodec):
        raise UserError(
            f"augment {variant.augment} needs pixels, but the features of a frozen encoder are"
            " stored: leave one of them out"
        )
    if replay.n_envs != n_envs:
        raise UserError(
            f"the replay is for {replay.n_envs} environments in parallel, the agent has {n_envs}"
        )
    return replay
