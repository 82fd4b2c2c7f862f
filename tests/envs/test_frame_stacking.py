"""What environments say of their stacks, and hints for names nearly right."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecCheckNan

from envs import FrameStacking, PixelVecEnv, frame_stacking
from envs.errors import nearest


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


def test_an_answer_of_the_wrong_kind_is_refused():
    env = Still()
    env.frame_stacking = 4
    with pytest.raises(TypeError, match="must be a FrameStacking"):
        frame_stacking(DummyVecEnv([lambda: env]))


def test_nearest_names():
    assert nearest("Impalla", ["nature", "impala"]) == ' Did you mean "impala"?'
    assert nearest("zzz", ["nature", "impala"]) == ""
    assert nearest("b2", ["a-1", "b-1"], key=lambda name: name[0]) == ' Did you mean "b-1"?'
