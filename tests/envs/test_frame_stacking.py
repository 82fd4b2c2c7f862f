"""What environments say of their stacks, and hints for names nearly right."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import FrameStackObservation
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    VecCheckNan,
    VecFrameStack,
    VecTransposeImage,
)

from envs import FrameStacking, PixelVecEnv, frame_stacking
from envs.errors import nearest
from envs.stacking import frame_channels


class Still(gym.Env):
    action_space = spaces.Discrete(2)

    def __init__(self, shape=(3, 9, 9)):
        self.observation_space = spaces.Box(0, 255, shape, np.uint8)


def test_a_foreign_vector_is_taken_as_unstacked():
    assert frame_stacking(DummyVecEnv([Still])) == FrameStacking(1, 3, "zeros")
    with pytest.raises(ValueError, match="must be images"):
        frame_stacking(DummyVecEnv([lambda: Still((4,))]))


def test_wrappers_pass_the_answer_on():
    env = PixelVecEnv([Still], obs="rgb", obs_size=9, frame_stack=2)
    assert frame_stacking(VecCheckNan(env)) == FrameStacking(2, 3, "zeros")


def test_channels_of_a_frame_are_known_where_something_says_how_frames_are_stacked():
    grey, colour = (Still(shape) for shape in ((9, 9, 1), (9, 9, 3)))
    assert frame_channels(PixelVecEnv([Still], obs="grey", obs_size=9, frame_stack=3)) == 1
    assert frame_channels(VecTransposeImage(VecFrameStack(DummyVecEnv([lambda: grey]), 3))) == 1
    assert frame_channels(VecTransposeImage(VecFrameStack(DummyVecEnv([lambda: colour]), 2))) == 3
    twice = VecFrameStack(VecFrameStack(DummyVecEnv([lambda: grey]), 3), 2)
    assert frame_channels(VecTransposeImage(twice)) == 1
    stacked = FrameStackObservation(Still((9, 9)), 3)
    assert frame_channels(DummyVecEnv([lambda: stacked])) == 1
    assert frame_channels(DummyVecEnv([Still])) is None


def test_an_answer_of_the_wrong_kind_is_refused():
    env = Still()
    env.frame_stacking = 4
    with pytest.raises(TypeError, match="must be a FrameStacking"):
        frame_stacking(DummyVecEnv([lambda: env]))


def test_nearest_names():
    assert nearest("Impalla", ["nature", "impala"]) == ' Did you mean "impala"?'
    assert nearest("zzz", ["nature", "impala"]) == ""
    assert nearest("b2", ["a-1", "b-1"], key=lambda name: name[0]) == ' Did you mean "b-1"?'
