"""AtariVecEnv as a VecEnv: seeds, actions, the order of calls, and wrong arguments."""

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
from gymnasium.wrappers import AtariPreprocessing
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.preprocessing import is_image_space_channels_first
from support.games import play, random_actions

from envs import AtariVecEnv, UserError, get_protocol

CLASSIC = get_protocol("classic")


class TestSeeds:
    @staticmethod
    def frames(env: AtariVecEnv) -> np.ndarray:
        return np.stack([observations for observations, *_ in play(env, random_actions(env, 60))])

    @staticmethod
    def make(seed: int, num_threads: int = 1) -> AtariVecEnv:
        sticky = dataclasses.replace(CLASSIC, repeat_action_probability=0.25)
        return AtariVecEnv(
            "ALE/Breakout-v5", 2, protocol=sticky, seed=seed, num_threads=num_threads
        )

    @pytest.fixture(scope="class")
    def env(self) -> AtariVecEnv:
        return self.make(1)

    @pytest.fixture(scope="class")
    def played(self, env) -> tuple[np.ndarray, np.ndarray]:
        """What is seen from the reset after the seed on, and from the one after that."""
        env.reset()
        env.seed(7)
        return self.frames(env), self.frames(env)

    def test_repeat_the_games_whatever_was_played_before_and_the_threads(self, env, played):
        fresh = self.make(7, num_threads=2)
        np.testing.assert_array_equal(played[0], self.frames(fresh))
        np.testing.assert_array_equal(played[1], self.frames(fresh))
        assert env.seed(7) == fresh.seed(7)

    def test_differ(self, env, played):
        env.seed(8)
        assert (played[0] != self.frames(env)).any()

    def test_seed_applies_to_the_next_reset_only(self, played):
        assert (played[0] != played[1]).any()

    def test_none_draws_one(self):
        env = AtariVecEnv(num_envs=1)
        assert env.seed() != env.seed()

    def test_valid_ones_are_taken(self):
        env = AtariVecEnv(num_envs=1, seed=2**31 - 1)
        env.reset()
        assert env.seed(np.int64(3)) == env.seed(3)
        assert env.reset().any()


class TestActions:
    INVALID = (
        np.array([0, 6]),
        np.array([-1, 0]),
        np.array([0]),
        np.array([[0], [0]]),
        np.array([0.0, 1.0]),
        np.array([True, False]),
    )

    def test_invalid_ones_are_refused_and_the_games_go_on(self):
        env = AtariVecEnv(num_envs=2, seed=0)
        env.reset()
        for actions in self.INVALID:
            with pytest.raises(UserError, match=r"actions must be .*\(2,\)|must be within 0\.\.5"):
                env.step(actions)
        for good in random_actions(env, 3):
            last = env.step(good)
        env.seed(0)
        np.testing.assert_array_equal(last[0], play(env, random_actions(env, 3))[-1][0])

    def test_any_integers_will_do(self):
        played = []
        env = AtariVecEnv(num_envs=1)
        for dtype in (np.int64, np.int32, np.uint8):
            env.seed(0)
            env.reset()
            # Past the screen's beginning, so that the paddle has moved.
            played.append([env.step(np.array([5], dtype=dtype))[0] for _ in range(30)][-1])
        np.testing.assert_array_equal(played[1], played[0])
        np.testing.assert_array_equal(played[2], played[0])


class TestOrderOfCalls:
    @pytest.fixture
    def env(self) -> Iterator[AtariVecEnv]:
        env = AtariVecEnv(num_envs=1, max_episode_steps=20)
        yield env
        env.close()

    def test_wrong_orders_are_refused_instead_of_hanging(self, env):
        with pytest.raises(RuntimeError, match=r"reset\(\)"):
            env.step_async(np.zeros(1, int))
        env.reset()
        with pytest.raises(RuntimeError, match="without step_async"):
            env.step_wait()
        env.step_async(np.zeros(1, int))
        with pytest.raises(RuntimeError, match="twice"):
            env.step_async(np.zeros(1, int))
        env.step_wait()

    def test_a_reset_drops_the_step_under_way(self, env):
        env.reset()
        env.step_async(np.zeros(1, int))
        env.reset()
        with pytest.raises(RuntimeError, match="without step_async"):
            env.step_wait()
        _, _, _, infos = env.step(np.zeros(1, int))
        assert len(infos) == 1

    def test_a_reset_forgets_unfinished_games(self, env):
        for _ in range(2):
            history = play(env, np.zeros((20, 1), int))
            assert history[-1][3][0]["episode"]["l"] == 20
            env.step(np.zeros(1, int))

    def test_closed_is_closed(self, env):
        env.reset()
        env.step_async(np.zeros(1, int))
        env.close()
        env.close()
        with pytest.raises(RuntimeError, match="closed"):
            env.reset()

    @pytest.mark.timeout(60)
    def test_a_wait_that_was_interrupted_is_not_waited_for_again(self, monkeypatch):
        """As ale-py does it: Ctrl-C during the wait is raised when the games have come."""
        env = AtariVecEnv(num_envs=1, num_threads=1)
        env.reset()
        receive = env._open_emulator().recv

        def interrupted() -> None:
            receive()
            raise KeyboardInterrupt

        env.step_async(np.zeros(1, int))
        with monkeypatch.context() as patch:
            patch.setattr(env._open_emulator(), "recv", interrupted)
            with pytest.raises(KeyboardInterrupt):
                env.step_wait()
        assert len(env.step(np.zeros(1, int))[3]) == 1
        env.step_async(np.zeros(1, int))
        env.close()


class TestAsVecEnv:
    @pytest.fixture(scope="class")
    def env(self) -> AtariVecEnv:
        return AtariVecEnv(num_envs=2)

    def test_attributes_are_shared(self, env):
        assert env.get_attr("env_id") == ["ALE/Pong-v5"] * 2
        assert env.get_attr("protocol", indices=[1]) == [CLASSIC]
        assert env.render_mode is None
        assert not env.has_attr("no_such_attribute")
        with pytest.raises(NotImplementedError, match="protocol"):
            env.set_attr("protocol", None)
        with pytest.raises(AttributeError, match="no_such_method"):
            env.env_method("no_such_method")

    def test_is_monitored(self, env):
        assert env.env_is_wrapped(Monitor) == [True] * 2
        assert env.env_is_wrapped(AtariPreprocessing, indices=0) == [False]

    def test_reset_infos_tell_the_lives(self):
        env = AtariVecEnv("ALE/Breakout-v5", 1)
        env.reset()
        assert env.reset_infos == [{"lives": 5}]


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"env_id": "ALE/Pongg-v5"}, r'unknown Atari game "ALE/Pongg-v5".*"ALE/Pong-v5"\?$'),
        ({"num_envs": 0}, "num_envs must be a whole number of at least 1, not 0"),
        ({"num_envs": 2.0}, "num_envs .* not 2.0"),
        ({"num_threads": -1}, "num_threads .* at least 0, not -1"),
        ({"seed": -1}, "seed .* not -1"),
        ({"seed": 2**31}, "seed .* to 2147483647, not 2147483648"),
        ({"seed": True}, "seed .* not True"),
        ({"protocol": "clasic"}, r'unknown protocol "clasic".*"classic"\?$'),
        ({"obs": "gray"}, r'unknown obs "gray".*"grey"\?$'),
        ({"obs_size": 0}, "obs_size .* at least 1, not 0"),
        ({"frame_stack": 0}, "frame_stack .* at least 1, not 0"),
        ({"max_episode_steps": 0}, "max_episode_steps .* at least 1, not 0"),
        ({"obs": "rgb", "obs_size": 11}, "obs_size 11 is smaller than the 12 channels"),
    ],
)
def test_bad_values_are_refused_in_one_line(wrong, line):
    with pytest.raises(UserError, match=line) as caught:
        AtariVecEnv(**{"num_envs": 1, **wrong})
    assert "\n" not in str(caught.value)


def test_the_smallest_observations_are_still_channels_first():
    env = AtariVecEnv(num_envs=1, obs="rgb", obs_size=12)
    assert env.reset().shape == (1, 12, 12, 12)
    assert is_image_space_channels_first(env.observation_space)
