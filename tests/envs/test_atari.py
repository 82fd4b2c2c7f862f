"""AtariVecEnv's games against Gymnasium's single Atari environment, and by their properties.

An emulator takes a fifth of a second to start, as long as some hundred steps: tests start few.
"""

import dataclasses
import itertools

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import AtariPreprocessing
from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first
from support.games import play, random_actions

from envs import AtariVecEnv, FrameStacking, frame_stacking, get_protocol

CLASSIC = get_protocol("classic")
NOOP, FIRE = 0, 1
# The only setting in which ale-py's vector and Gymnasium's single environment agree by design.
PLAIN = dataclasses.replace(CLASSIC, name="plain", noop_max=0, use_fire_reset=False)


def distinct(observations: np.ndarray) -> int:
    """How many of the environments show different things."""
    return len({observation.tobytes() for observation in observations})


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
    def test_differs_from_the_end_of_the_game(self):
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

    def test_the_default_limit_is_half_an_hour(self):
        assert AtariVecEnv(num_envs=1).max_episode_steps == 27_000
        assert AtariVecEnv(num_envs=1, max_episode_steps=9).max_episode_steps == 9
