"""The single emulator against the vector environment of agents."""

import dataclasses
import itertools

import ale_py
import numpy as np
import pytest
from ale_py import roms

from envs import AtariVecEnv, get_protocol
from envs.checks import derive_seeds
from rlcnn.data.atari.emulator import AtariGame, minimal_actions

SEED = 5


class Openings:
    """In place of a generator: always the same number of no-ops."""

    def __init__(self, noops: int) -> None:
        self.noops = noops

    def integers(self, limit: int) -> int:
        return self.noops


def play_with_vector_env(env_id, actions, **options):
    """Newest frames, rewards and dones until the game or the actions end."""
    env = AtariVecEnv(env_id, 1, training=False, seed=SEED, num_threads=1, **options)
    channels = env.frame_stacking.channels
    frames, steps = [env.reset()[0, -channels:]], []
    for action in actions:
        observations, rewards, dones, _ = env.step(np.array([action]))
        steps.append((int(rewards[0]), bool(dones[0])))
        if dones[0]:
            break
        frames.append(observations[0, -channels:])
    return frames, steps


def same(game: AtariGame, actions, frames, steps) -> bool:
    """Whether the game gives the same frames, rewards and ends."""
    if not np.array_equal(game.reset(), frames[0]):
        return False
    for action, (reward, done), expected in itertools.zip_longest(
        actions[: len(steps)], steps, frames[1:]
    ):
        frame, its_reward = game.step(int(action))
        if its_reward != reward or (frame is None) != done:
            return False
        if not done and not np.array_equal(frame, expected):
            return False
    return True


@pytest.mark.parametrize(
    ("env_id", "rom", "protocol", "obs", "size", "steps"),
    [
        ("ALE/Breakout-v5", "breakout", "classic", "grey", 84, 120),
        ("ALE/Pong-v5", "pong", "classic", "rgb", 96, 30),
        ("ALE/SpaceInvaders-v5", "space_invaders", "sticky", "grey", 84, 250),
        pytest.param(
            *("ALE/Breakout-v5", "breakout", "sticky", "rgb", 210, 60), marks=pytest.mark.slow
        ),
    ],
)
def test_shows_what_an_agent_sees_bit_for_bit(env_id, rom, protocol, obs, size, steps):
    played = get_protocol(protocol)
    options = {"obs": obs, "obs_size": size}
    game = AtariGame(rom, played, seed=derive_seeds(SEED, 1)[0], **options)
    actions = np.random.default_rng(0).integers(len(game.actions), size=steps)
    frames, steps_taken = play_with_vector_env(env_id, actions, protocol=played, **options)

    def agrees(noops: int) -> bool:
        game._openings = Openings(noops)
        return same(game, actions, frames, steps_taken)

    # ale-py draws the number from a generator of its own: one of the possible must do.
    assert any(map(agrees, range(max(1, played.noop_max))))


def test_openings_differ_and_repeat_with_the_seed():
    def openings(seed):
        game = AtariGame("space_invaders", get_protocol("classic"), seed=seed)
        return [game.reset().tobytes() + game.ram().tobytes() for _ in range(6)]

    assert openings(1) == openings(1)
    assert len(set(openings(1))) > 1


def test_the_ram_is_that_of_the_newest_frame():
    plain = dataclasses.replace(get_protocol("classic"), noop_max=0, use_fire_reset=False)
    game = AtariGame("pong", plain)
    bare = ale_py.ALEInterface()
    bare.setFloat("repeat_action_probability", 0.0)
    bare.setInt("random_seed", 0)
    bare.loadROM(roms.get_rom_path("pong"))
    game.reset()
    up = game.actions.index("RIGHT")
    for _ in range(30):
        np.testing.assert_array_equal(game.ram(), bare.getRAM())
        game.step(up)
        for _ in range(4):
            bare.act(ale_py.Action.RIGHT)


def test_the_minimal_set_within_all_actions():
    game = AtariGame("breakout", get_protocol("sticky"))
    assert len(game.actions) == 18
    names = tuple(game.actions[i] for i in game.minimal)
    assert names == minimal_actions("breakout") == ("NOOP", "FIRE", "RIGHT", "LEFT")
    assert AtariGame("breakout", get_protocol("classic")).minimal == (0, 1, 2, 3)
