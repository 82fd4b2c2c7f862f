"""DQN's replay, made to fit its environment and its memory."""

from __future__ import annotations

from gymnasium import spaces
from stable_baselines3 import DQN

from agents.storage.codecs import FrameCodec
from agents.storage.replay import FrameReplay
from envs.errors import UserError
from envs.stacking import FrameStacking
from rlcnn.accelerate.cuda_graphs import make_recorder
from rlcnn.accelerate.memory import choose_place


def make_replay(
    model: DQN, stacking: FrameStacking, codec: FrameCodec, seed: int, wanted: str, graphs: bool
) -> FrameReplay:
    """An empty replay for an agent.

    Args:
        model: its size, spaces and environments.
        stacking: how the environment stacks frames.
        codec: how frames are stored.
        seed: of the sampler.
        wanted: ``replay_device``.
        graphs: whether a GPU captures the writes of a step.

    Raises:
        UserError: it does not fit into memory.
    """
    assert isinstance(model.observation_space, spaces.Box)
    assert isinstance(model.action_space, spaces.Discrete)
    arguments = (model.buffer_size, model.observation_space, model.action_space)
    needed = FrameReplay.memory_needed(*arguments, model.n_envs, stacking, codec)
    what = f"a replay of {model.buffer_size:,} transitions"
    device = choose_place(wanted, model.device, needed, what)
    return FrameReplay(
        *arguments,
        device,
        model.n_envs,
        stacking=stacking,
        codec=codec,
        seed=seed,
        recorder=make_recorder(device) if graphs else None,
    )


def check_replay(replay: FrameReplay, stacking: FrameStacking, n_envs: int) -> None:
    """Refuses a replay that cannot store the steps of the environments.

    Raises:
        UserError: it is none of ours, or for other frame stacks or another number of environments.
    """
    if not isinstance(replay, FrameReplay):
        raise UserError(
            f"replay_buffer must be the replay of an agents.DQN, not {type(replay).__name__}"
        )
    if replay.stacking != stacking:
        raise UserError(
            f"the replay holds stacks of {replay.stacking}, the environment now makes {stacking}"
        )
    if replay.n_envs != n_envs:
        raise UserError(
            f"the replay is for {replay.n_envs} environments in parallel, the agent has {n_envs}"
        )
