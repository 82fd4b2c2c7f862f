"""Ids of environments: what they mean, and what was probably meant."""

import gymnasium as gym
import pytest

from envs import AtariVecEnv, UserError, make_vec_env
from envs.registry import atari_rom, find_spec, is_atari


@pytest.mark.parametrize(
    ("env_id", "rom"), [("ALE/Pong-v5", "pong"), ("ALE/MsPacman-v5", "ms_pacman")]
)
def test_roms_of_games(env_id, rom):
    assert atari_rom(env_id) == rom


@pytest.mark.parametrize(
    ("env_id", "meant"),
    [
        ("ALE/pong-v5", "ALE/Pong-v5"),
        ("ALE/Pong-v4", "ALE/Pong-v5"),
        ("ALE/Brekout-v5", "ALE/Breakout-v5"),
        ("ALE/Pong-ram-v5", "ALE/Pong-v5"),
        ("PongNoFrameskip-v4", "ALE/Pong-v5"),
        ("SpaceInvaders-v4", "ALE/SpaceInvaders-v5"),
        ("Pong", "ALE/Pong-v5"),
        ("pong-v5", "ALE/Pong-v5"),
    ],
)
def test_games_nearly_named(env_id, meant):
    with pytest.raises(UserError, match=rf'Did you mean "{meant}"\?$') as caught:
        make_vec_env(env_id, 1)
    assert f'"{env_id}"' in str(caught.value)


def test_nothing_is_suggested_where_nothing_is_near():
    with pytest.raises(
        UserError, match=r'^unknown environment "Qqqq-v0"\. If it is yours, .*"my_module:Qqqq-v0"$'
    ):
        find_spec("Qqqq-v0")


@pytest.mark.parametrize("module", ["tests/support/worlds.py", "./worlds", "/my files/worlds.py"])
def test_a_file_is_no_module(module):
    with pytest.raises(UserError, match=r'names a file: .* such as "worlds:Cave-v0" from'):
        find_spec(f"{module}:Cave-v0")


def test_a_module_that_does_not_register_its_environment_gets_advice():
    with pytest.raises(UserError, match=r'"json" must call gymnasium\.register\(id="Qqqq-v0"'):
        find_spec("json:Qqqq-v0")


def test_kinds_are_distinguished():
    assert is_atari(find_spec("ALE/Pong-v5"))
    assert is_atari(find_spec("PongNoFrameskip-v4"))
    assert not is_atari(find_spec("CartPole-v1"))


def test_every_registered_game_has_a_rom():
    games = [env_id for env_id in gym.registry if env_id.startswith("ALE/")]
    assert len(games) > 50
    assert all(atari_rom(env_id) for env_id in games)


def test_games_are_played_by_their_own_vector():
    env = make_vec_env("ALE/Pong-v5", 1, protocol="sticky", obs="rgb", obs_size=96, frame_stack=2)
    assert isinstance(env, AtariVecEnv)
    assert env.observation_space.shape == (6, 96, 96)
    assert env.action_space.n == 18
