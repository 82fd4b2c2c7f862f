"""Rules by which Atari games are played."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from envs.errors import UserError, nearest

ProtocolName = Literal["classic", "sticky"]


@dataclass(frozen=True)
class AtariProtocol:
    """How a game starts, what an action does and when an episode ends.

    An agent step is ``frame_skip`` emulator frames, of which the last two are max-pooled
    (Mnih et al. 2015, "Human-level control through deep reinforcement learning", Methods).

    Attributes:
        name: its name for ``get_protocol``.
        noop_max: a game starts with a random number of no-op frames below this; 0 for none.
            Mnih 2015, extended data table 1 ("no-op max" 30); ale-py draws from 0 to 29.
        repeat_action_probability: chance, at each emulator frame, that the previous action is
            repeated ("sticky actions"). Machado et al. 2018, "Revisiting the Arcade Learning
            Environment: Evaluation Protocols and Open Problems for General Agents".
        full_action_space: all 18 joystick actions instead of the game's own few. Machado 2018.
        use_fire_reset: presses FIRE at the start of a game that waits for it. In neither paper: it
            is the rule of OpenAI baselines' ``FireResetEnv``, used for most published results.
        terminal_on_life_loss: training only: a lost life ends the episode and the game continues.
            Mnih 2015, Methods, "Training details"; Machado 2018 advises against it.
        clip_rewards: training only: rewards become their sign. Mnih 2015, Methods.
        frame_skip: emulator frames for one agent step. Mnih 2015, Methods.
        max_episode_steps: agent steps after which a game is truncated: 27,000 steps are 108,000
            frames, half an hour of play. Machado 2018; the default of ``ALE/*-v5``.
    """

    name: str
    noop_max: int
    repeat_action_probability: float
    full_action_space: bool
    use_fire_reset: bool
    terminal_on_life_loss: bool
    clip_rewards: bool = True
    frame_skip: int = 4
    max_episode_steps: int = 27_000


PROTOCOLS: dict[str, AtariProtocol] = {
    protocol.name: protocol
    for protocol in (
        AtariProtocol(
            name="classic",
            noop_max=30,
            repeat_action_probability=0.0,
            full_action_space=False,
            use_fire_reset=True,
            terminal_on_life_loss=True,
        ),
        AtariProtocol(
            name="sticky",
            noop_max=0,
            repeat_action_probability=0.25,
            full_action_space=True,
            use_fire_reset=False,
            terminal_on_life_loss=False,
        ),
    )
}


def get_protocol(protocol: str | AtariProtocol) -> AtariProtocol:
    """The protocol of this name; a protocol is returned unchanged.

    Raises:
        UserError: no protocol has this name.
    """
    if isinstance(protocol, AtariProtocol):
        return protocol
    if protocol not in PROTOCOLS:
        known = ", ".join(PROTOCOLS)
        raise UserError(
            f'unknown protocol "{protocol}": expected one of {known}.{nearest(protocol, PROTOCOLS)}'
        )
    return PROTOCOLS[protocol]


def apply_training_rules(
    protocol: AtariProtocol,
    observations: np.ndarray,
    rewards: np.ndarray,
    ended: np.ndarray,
    lost_life: np.ndarray,
    infos: list[dict[str, Any]],
) -> tuple[np.ndarray, np.ndarray]:
    """A protocol's rules for training: lost lives end episodes, and rewards are clipped.

    Args:
        protocol: the rules.
        observations: (num_envs, ...), of the step.
        rewards: float32 (num_envs,); clipped in place.
        ended: bool (num_envs,), games that ended.
        lost_life: bool (num_envs,), games in which a life was lost.
        infos: one for each game; those of ended episodes are completed.

    Returns:
        rewards and dones.
    """
    dones = ended
    if protocol.terminal_on_life_loss:
        dones = ended | lost_life
        for i in np.flatnonzero(dones & ~ended).tolist():
            infos[i]["terminal_observation"] = observations[i].copy()
            infos[i]["TimeLimit.truncated"] = False
            infos[i]["life_loss"] = True
    if protocol.clip_rewards:
        np.sign(rewards, out=rewards)
    return rewards, dones
