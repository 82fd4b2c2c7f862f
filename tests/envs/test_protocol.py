"""The two protocols, value by value."""

import dataclasses

import pytest

from envs import PROTOCOLS, UserError, get_protocol

SHARED = {"clip_rewards": True, "frame_skip": 4, "max_episode_steps": 27_000}


def test_classic_is_mnih_2015():
    assert dataclasses.asdict(get_protocol("classic")) == {
        "name": "classic",
        "noop_max": 30,
        "repeat_action_probability": 0.0,
        "full_action_space": False,
        "use_fire_reset": True,
        "terminal_on_life_loss": True,
        **SHARED,
    }


def test_sticky_is_machado_2018():
    assert dataclasses.asdict(get_protocol("sticky")) == {
        "name": "sticky",
        "noop_max": 0,
        "repeat_action_probability": 0.25,
        "full_action_space": True,
        "use_fire_reset": False,
        "terminal_on_life_loss": False,
        **SHARED,
    }


def test_names_and_protocols_of_ones_own():
    assert list(PROTOCOLS) == ["classic", "sticky"]
    own = dataclasses.replace(get_protocol("classic"), name="own", noop_max=7)
    assert get_protocol(own) is own
    with pytest.raises(UserError, match=r'unknown protocol "stick": .*"sticky"\?$'):
        get_protocol("stick")
