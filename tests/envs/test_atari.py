"""AtariVecEnv against Gymnasium's single Atari environment, and by its properties.

An emulator costs a fifth of a second, some hundred steps of it: tests take few of them.
"""

import dataclasses
import itertools
from collections.abc import Iterator

import ale_py
import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import AtariPreprocessing
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first

from envs import AtariVecEnv, FrameStacking, UserError, frame_stacking, get_protocol

gym.register_envs(ale_py)

CLASSIC = get_protocol("classic")
# The only setting in which ale-py's vector and Gymnasium's single environment agree by design.
PLAIN = dataclasses.replace(CLASSIC, name="plain", noop_max=0, use_fire_reset=False)
NOOP, FIRE = 0, 1


def random_actions(env: AtariVecEnv, steps: int, seed: int = 0) -> np.ndarray:
    """Actions (steps, num_envs)."""
    return np.random.default_rng(seed).integers(env.action_space.n, size=(steps, env.num_envs))


def distinct(observations: np.ndarray) -> int:
    """How many of the environments show different things."""
    return len({observation.tobytes() for observation in observations})


def play(env: AtariVecEnv, actions: np.ndarray) -> list:
    env.reset()
    return [env.step(action) for action in actions]


class ReferenceGame:
    """Gymnasium's single environment with a zero-padded stack of its own."""

    def __init__(
        self, env_id: str, obs: str, size: int, depth: int, max_frames: int = 108_000
    ) -> None:
        game = gym.make(
            env_id,
            frameskip=1,
            repeat_action_probability=0.0,
            max_num_frames_per_episode=max_frames,
        )
        self.env = AtariPreprocessing(
            game, noop_max=0, screen_size=size, grayscale_obs=obs == "grey", grayscale_newaxis=True
        )
        self.frames: list[np.ndarray] = []
        self.depth = depth

    def reset(self) -> np.ndarray:
        frame, _ = self.env.reset()
        self.frames = [np.zeros_like(frame)] * (self.depth - 1) + [frame]
        return self.stack()

    def step(self, action: int) -> tuple[np.ndarray, float, bool]:
        frame, reward, terminated, truncated, _ = self.env.step(action)
        self.frames = [*self.frames[1:], frame]
        return self.stack(), float(reward), terminated or truncated

    def stack(self) -> np.ndarray:
        return np.concatenate([frame.transpose(2, 0, 1) for frame in self.frames])


@pytest.mark.parametrize(
    ("env_id", "num_envs", "obs", "size", "depth", "steps"),
    [
        ("ALE/Breakout-v5", 2, "grey", 84, 4, 250),
        pytest.param("ALE/Breakout-v5", 2, "rgb", 84, 4, 250, marks=pytest.mark.slow),
        pytest.param("ALE/Pong-v5", 2, "grey", 84, 4, 120, marks=pytest.mark.slow),
        ("ALE/Pong-v5", 1, "rgb", 96, 2, 40),
        ("ALE/Pong-v5", 1, "grey", 210, 1, 25),
    ],
)
def test_equals_gymnasiums_single_environment(env_id, num_envs, obs, size, depth, steps):
    env = AtariVecEnv(
        env_id, num_envs, protocol=PLAIN, training=False, obs=obs, obs_size=size, frame_stack=depth
    )
    references = [ReferenceGame(env_id, obs, size, depth) for _ in range(num_envs)]
    np.testing.assert_array_equal(env.reset(), [game.reset() for game in references])
    ends = 0
    for actions in random_actions(env, steps):
        observations, rewards, dones, infos = env.step(actions)
        for i, game in enumerate(references):
            expected, reward, done = game.step(int(actions[i]))
            assert (rewards[i], dones[i]) == (reward, done)
            assert ("terminal_observation" in infos[i]) == done
            if done:
                ends += 1
                np.testing.assert_array_equal(infos[i]["terminal_observation"], expected)
                expected = game.reset()
            np.testing.assert_array_equal(observations[i], expected)
    assert ends >= num_envs or "Breakout" not in env_id


@pytest.mark.parametrize(("obs", "size"), [("grey", 96), ("rgb", 128), ("rgb", 210)])
def test_observations_of_any_size(obs, size):
    env = AtariVecEnv(num_envs=1, obs=obs, obs_size=size, frame_stack=3)
    channels = 3 if obs == "grey" else 9
    assert env.observation_space.shape == (channels, size, size)
    observations, rewards, dones, _ = play(env, random_actions(env, 3))[-1]
    assert observations.shape == (1, channels, size, size)
    assert observations.flags.c_contiguous
    assert (observations.dtype, rewards.dtype, dones.dtype) == (np.uint8, np.float32, bool)
    assert is_image_space(env.observation_space)
    assert is_image_space_channels_first(env.observation_space)
    assert frame_stacking(env) == FrameStacking(3, channels // 3, "zeros")


@pytest.mark.parametrize("training", [True, False])
def test_a_step_leaves_what_was_returned_before_alone(training):
    env = AtariVecEnv("ALE/Breakout-v5", 1, training=training)
    history = play(env, random_actions(env, 60))
    copies = [(observations.copy(), rewards.copy()) for observations, rewards, _, _ in history]
    for action in random_actions(env, 60, seed=1):
        env.step(action)
    for (observations, rewards, _, _), (kept_observations, kept_rewards) in zip(
        history, copies, strict=True
    ):
        np.testing.assert_array_equal(observations, kept_observations)
        np.testing.assert_array_equal(rewards, kept_rewards)
    assert len({id(info) for _, _, _, infos in history for info in infos}) == 60


class TestStarts:
    def test_no_ops_vary_the_start(self):
        without_fire = dataclasses.replace(CLASSIC, use_fire_reset=False)
        for protocol, vary in ((without_fire, True), (PLAIN, False)):
            env = AtariVecEnv("ALE/Pong-v5", 2, protocol=protocol)
            # Pong shows the same for some frames, so look once the ball is under way.
            observations, *_ = play(env, np.full((40, 2), NOOP))[-1]
            assert distinct(observations) > 1 if vary else distinct(observations) == 1

    @pytest.mark.parametrize("fire", [True, False])
    def test_fire_begins_the_game_where_it_is_pressed(self, fire):
        protocol = dataclasses.replace(PLAIN, use_fire_reset=fire)
        env = AtariVecEnv("ALE/Breakout-v5", 1, protocol=protocol, training=False)
        # Breakout serves no ball, and so takes no life, before FIRE.
        *_, (_, _, _, infos) = play(env, np.full((60, 1), NOOP))
        assert infos[0]["lives"] == (4 if fire else 5)

    def test_fire_is_not_pressed_after_a_lost_life(self):
        env = AtariVecEnv("ALE/Breakout-v5", 1)
        history = play(env, np.full((300, 1), NOOP))
        assert sum(dones[0] for _, _, dones, _ in history) == 1
        assert history[-1][3][0]["lives"] == 4

    def test_the_stack_of_a_fresh_game_is_zeros_and_one_frame(self):
        observations = AtariVecEnv("ALE/Breakout-v5", 2).reset()
        assert not observations[:, :3].any()
        assert observations[:, 3].any(axis=(1, 2)).all()


class TestSticky:
    def test_sticky_actions_change_transitions(self):
        sticky = dataclasses.replace(PLAIN, repeat_action_probability=0.25)
        for protocol, vary in ((PLAIN, False), (sticky, True)):
            env = AtariVecEnv("ALE/Breakout-v5", 2, protocol=protocol, training=False)
            env.reset()
            rng = np.random.default_rng(0)
            most = 1
            for _ in range(40):
                observations, *_ = env.step(np.full(2, rng.integers(4)))
                most = max(most, distinct(observations))
            assert (most > 1) == vary

    def test_has_all_actions_and_ends_with_the_game_only(self):
        env = AtariVecEnv("ALE/Breakout-v5", 1, protocol="sticky")
        assert env.action_space.n == 18
        actions = np.random.default_rng(0).choice([FIRE, 3, 4], size=(400, 1))
        ends = [info for _, _, _, infos in play(env, actions) for info in infos if len(info) > 1]
        assert ends
        assert all("episode" in info and "life_loss" not in info for info in ends)


class TestLives:
    @pytest.fixture(scope="class")
    def history(self) -> list:
        env = AtariVecEnv("ALE/Breakout-v5", 2)
        return play(env, random_actions(env, 500))

    def test_a_game_of_five_lives_is_five_episodes(self, history):
        losses, games = np.zeros(2, int), 0
        for _, _, dones, infos in history:
            for i, info in enumerate(infos):
                assert dones[i] == ("terminal_observation" in info)
                assert not ("life_loss" in info and "episode" in info)
                losses[i] += info.get("life_loss", False)
                if "episode" in info:
                    assert losses[i] == 4
                    assert info["lives"] == 5
                    losses[i], games = 0, games + 1
        assert games >= 2

    def test_the_game_and_its_stack_go_on_after_a_lost_life(self, history):
        seen = 0
        for (now, _, _, infos), (after, _, ended, _) in itertools.pairwise(history):
            for i, info in enumerate(infos):
                if "life_loss" in info and not ended[i]:
                    seen += 1
                    final = info["terminal_observation"]
                    np.testing.assert_array_equal(final, now[i])
                    assert not np.shares_memory(final, now)
                    np.testing.assert_array_equal(after[i, :3], final[1:])
                    assert info["TimeLimit.truncated"] is False
        assert seen >= 8

    def test_evaluation_does_not_end_at_a_lost_life(self):
        env = AtariVecEnv("ALE/Breakout-v5", 1, training=False)
        infos = [info for _, _, _, infos in play(env, random_actions(env, 300)) for info in infos]
        assert any(info["lives"] == 1 for info in infos)
        assert not any("life_loss" in info for info in infos)


@pytest.mark.parametrize(
    ("env_id", "num_envs"), [("ALE/Breakout-v5", 1), ("ALE/SpaceInvaders-v5", 1)]
)
def test_returns_are_of_whole_games_and_unclipped(env_id, num_envs):
    trained, evaluated = (
        AtariVecEnv(env_id, num_envs, training=training, seed=5, max_episode_steps=160)
        for training in (True, False)
    )
    actions = random_actions(trained, 330)
    sums, lengths, games = np.zeros(num_envs), np.zeros(num_envs, int), 0
    for ours, theirs in zip(play(trained, actions), play(evaluated, actions), strict=True):
        np.testing.assert_array_equal(ours[0], theirs[0])
        np.testing.assert_array_equal(ours[1], np.sign(theirs[1]))
        sums += theirs[1]
        lengths += 1
        for i in range(num_envs):
            assert ("episode" in ours[3][i]) == theirs[2][i]
            if theirs[2][i]:
                for info in (ours[3][i], theirs[3][i]):
                    assert (info["episode"]["r"], info["episode"]["l"]) == (sums[i], lengths[i])
                    assert info["episode"]["t"] > 0
                games += 1
                sums[i] = lengths[i] = 0
    assert games >= 2 * num_envs


class TestTruncation:
    def test_is_told_from_the_end_of_the_game(self):
        env = AtariVecEnv("ALE/Pong-v5", 2, max_episode_steps=30)
        for step, (observations, _, dones, infos) in enumerate(
            play(env, random_actions(env, 60)), start=1
        ):
            # No-ops at the start do not count: all games reach the limit in the same step.
            assert dones.tolist() == [step % 30 == 0] * 2
            for i in np.flatnonzero(dones):
                assert infos[i]["TimeLimit.truncated"] is True
                assert infos[i]["episode"]["l"] == 30
                assert not observations[i, :3].any()

    @pytest.mark.parametrize("obs", ["grey", "rgb"])
    def test_terminal_observation_is_gymnasiums(self, obs):
        env = AtariVecEnv("ALE/Breakout-v5", 1, protocol=PLAIN, obs=obs, max_episode_steps=30)
        game = ReferenceGame("ALE/Breakout-v5", obs, 84, 4, max_frames=120)
        env.reset()
        game.reset()
        for action in random_actions(env, 30):
            _, _, dones, infos = env.step(action)
            expected, _, done = game.step(int(action[0]))
        assert dones[0]
        assert done
        np.testing.assert_array_equal(infos[0]["terminal_observation"], expected)

    def test_an_ended_game_is_not_truncated(self):
        env = AtariVecEnv("ALE/Breakout-v5", 1, training=False)
        history = play(env, random_actions(env, 300))
        ends = [info for _, _, dones, infos in history for info in infos if "episode" in info]
        assert ends
        assert all(info["TimeLimit.truncated"] is False for info in ends)

    def test_the_cap_is_half_an_hour_unless_told_otherwise(self):
        assert AtariVecEnv(num_envs=1).max_episode_steps == 27_000
        assert AtariVecEnv(num_envs=1, max_episode_steps=9).max_episode_steps == 9


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
        env.seed(np.int64(3))
        env.reset()


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
