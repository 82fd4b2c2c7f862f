"""Episodes played for their frames."""

import itertools

import numpy as np
import pytest

from envs import AtariVecEnv, UserError, get_protocol
from rlcnn.data.atari.playing import EpisodeSpec, digest, play_at_random, play_by_policy

# Episodes side by side; each needs an emulator of its own, and time.
LANES = 2


@pytest.fixture(autouse=True)
def few_lanes(monkeypatch):
    monkeypatch.setattr("rlcnn.data.atari.playing.LANES", LANES)


def spec(seed=2, rom="breakout", protocol="sticky", **changes) -> EpisodeSpec:
    return EpisodeSpec(
        **{
            "rom": rom,
            "protocol": get_protocol(protocol),
            "obs": "grey",
            "obs_size": 84,
            "max_steps": 60,
            "repeat_probability": 0.5,
            "seed": seed,
            **changes,
        }
    )


def test_the_vector_environment_shows_the_same_for_the_same_actions():
    """The sticky protocol has no random no-ops, so the emulator's seed determines everything."""
    played = play_at_random(spec(max_steps=1000))
    env = AtariVecEnv("ALE/Breakout-v5", 1, protocol="sticky", training=False, num_threads=1)
    env._seeds = [2]
    minimal = {0: 0, 1: 1, 2: 3, 3: 4}
    for row, frame in enumerate(played.frames):
        if row == 0:
            observation, reward = env.reset(), [0]
        else:
            observation, reward, _, _ = env.step(np.array([minimal[played.actions[row]]]))
        np.testing.assert_array_equal(observation[0, -1:], frame)
        assert reward[0] == played.rewards[row]
    assert played.actions[0] == -1
    # Chance ended the game, not the limit: the next step is the last.
    assert 100 < len(played.frames) < 1000


def test_all_fields_have_one_row_an_observation():
    played = play_at_random(spec(rom="pong", protocol="classic"))
    assert len(played.frames) == 61
    assert played.frames.shape == (61, 1, 84, 84)
    assert played.ram.shape == (61, 128)
    assert played.digests == [digest(frame) for frame in played.frames]
    assert len(played.actions) == len(played.rewards) == 61


@pytest.mark.parametrize("protocol", ["classic", "sticky"])
def test_earlier_episodes_have_no_effect(protocol):
    """An emulator is reused within a process."""
    first, other = spec(7, protocol=protocol), spec(8, protocol=protocol)
    played = play_at_random(first)
    between = play_at_random(other)
    again = play_at_random(first)
    assert played.digests == again.digests != between.digests
    np.testing.assert_array_equal(played.ram, again.ram)


@pytest.mark.parametrize("probability", [0.0, 0.8])
def test_the_last_action_is_repeated_with_the_given_probability(probability):
    limits = {"rom": "freeway", "max_steps": 700, "obs_size": 8}
    actions = play_at_random(spec(repeat_probability=probability, **limits)).actions[1:]
    assert set(actions) == {0, 1, 2}
    again = (actions[1:] == actions[:-1]).mean()
    # A third of new random actions equals the last; the standard deviation is 0.018.
    assert again == pytest.approx(probability + (1 - probability) / 3, abs=0.08)


class RecordingPolicy:
    """Plays by a rule and keeps the observations."""

    def __init__(self, rule) -> None:
        self.rule = rule
        self.seen: list[np.ndarray] = []

    def __call__(self, observations: np.ndarray) -> np.ndarray:
        self.seen.append(observations)
        return self.rule(observations)


def brightest_rows(observations: np.ndarray) -> np.ndarray:
    """An action that depends on every frame of the observation."""
    return observations.sum(axis=(1, 2, 3), dtype=np.int64) % 4


class TestByPolicy:
    def test_episodes_keep_their_order_and_depend_on_their_specs_alone(self):
        # Of different lengths: later episodes end before earlier ones.
        specs = [spec(seed, max_steps=20 + 7 * (seed % 3)) for seed in range(LANES + 2)]
        policy = RecordingPolicy(brightest_rows)
        together = list(play_by_policy(specs, policy, frame_stack=4))
        alone = [next(play_by_policy([each], brightest_rows, frame_stack=4)) for each in specs]
        assert len(together) == len(alone) == len(specs)
        for one, other in zip(together, alone, strict=True):
            assert one.digests == other.digests
            np.testing.assert_array_equal(one.actions, other.actions)
        assert policy.seen[0].shape == (LANES, 4, 84, 84)

    def test_the_policy_sees_whole_observations(self):
        policy = RecordingPolicy(brightest_rows)
        played = next(play_by_policy([spec()], policy, frame_stack=3))
        frames = np.concatenate([np.zeros((2, 1, 84, 84), np.uint8), played.frames])
        for row, seen in enumerate(policy.seen[: len(played.frames)]):
            np.testing.assert_array_equal(seen[0], frames[row : row + 3, 0])
        # In this protocol NOOP, FIRE, RIGHT and LEFT are actions 0, 1, 3 and 4: UP is not its own.
        asked = np.array([brightest_rows(seen)[0] for seen in policy.seen])
        expected = np.array([0, 1, -1, 2])[asked][: len(played.frames) - 1]
        np.testing.assert_array_equal(played.actions[1:], expected)

    def test_specs_may_be_endless(self):
        endless = play_by_policy(map(spec, itertools.count()), brightest_rows, frame_stack=1)
        assert len([next(endless) for _ in range(3)]) == 3
        endless.close()

    def test_exploration_draws_from_the_minimal_set(self):
        def still(observations):
            return np.zeros(len(observations), dtype=int)

        def actions(exploration):
            plays = play_by_policy([spec(5)], still, frame_stack=2, exploration=exploration)
            return next(plays).actions[1:].tolist()

        assert set(actions(0.0)) == {0}
        assert set(actions(1.0)) == {0, 1, 2, 3}
        assert actions(0.5) == actions(0.5)

    @pytest.mark.parametrize(
        "answer",
        [
            lambda observations: np.full(len(observations), 18),
            lambda observations: np.full(len(observations), -1),
            lambda observations: np.zeros(len(observations)),
            lambda observations: np.zeros((len(observations), 1), dtype=int),
        ],
    )
    def test_invalid_actions_are_refused(self, answer):
        with pytest.raises(UserError, match=r"the policy must answer 1 observations .* 0 to 17"):
            next(play_by_policy([spec()], answer, frame_stack=4))
