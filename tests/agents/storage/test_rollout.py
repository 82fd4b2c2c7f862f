"""On-policy storage: its observations, and its advantages against closed forms."""

from __future__ import annotations

import copy
from typing import Any, Literal

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.vec_env import VecFrameStack
from support.event_streams import EVENTS, Event, Stream
from support.observation_recorder import CompareObservations, ObservationRecorder
from support.property_tests import given, settings, st
from support.toy_envs import Clock, Columns, WorldVecEnv

from agents.ppo.agent import PPO
from agents.storage.codecs import PixelCodec
from agents.storage.rollout import FrameRollout
from envs.atari import AtariVecEnv
from envs.errors import UserError
from envs.stacking import FrameStacking

TINY = {"features_extractor_kwargs": {"encoder": "lenet", "encoder_options": {"features_dim": 16}}}

TINY_FRAMES = PixelCodec(FrameStacking(depth=1, channels=1), (1, 2, 2))


@pytest.mark.parametrize("obs", [pytest.param("grey", marks=pytest.mark.slow), "rgb"])
def test_observations_are_the_emulators_own_through_all_ends(obs: Literal["grey", "rgb"]) -> None:
    games = AtariVecEnv(
        "ALE/Breakout-v5",
        4,
        obs=obs,
        obs_size=36,
        frame_stack=3,
        seed=5,
        num_threads=1,
        max_episode_steps=150,
    )
    recorder = ObservationRecorder(games)
    model = PPO(
        "CnnPolicy",
        recorder,
        n_steps=50,
        batch_size=200,
        n_epochs=1,
        policy_kwargs=TINY,
        seed=0,
        device="cpu",
    )
    compare = CompareObservations(recorder)
    model.learn(4 * 50 * 5, callback=compare)
    assert compare.rollouts == 5
    assert recorder.ends == {"life lost", "cut off", "ended"}
    recorder.close()


@settings(max_examples=60)
@given(data=st.data())
def test_observations_are_the_environments_own(data: st.DataObject) -> None:
    padding: list[Literal["zeros", "repeat"]] = ["zeros", "repeat"]
    stacking = FrameStacking(
        depth=data.draw(st.integers(1, 4)),
        channels=data.draw(st.sampled_from([1, 3])),
        padding=data.draw(st.sampled_from(padding)),
    )
    n_envs, length = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 6))
    stream = Stream(n_envs, stacking)
    rollout = FrameRollout(length, n_envs, stream.codec)
    observations = stream.reset()
    for _ in range(data.draw(st.integers(1, 3))):
        if data.draw(st.booleans()):
            observations = stream.reset()
        rollout.reset()
        # For the first step it does not matter: the whole stack is stored.
        stack_reset = np.array(data.draw(st.lists(st.booleans(), min_size=n_envs, max_size=n_envs)))
        seen = []
        for _ in range(length):
            events: list[Event] = [data.draw(st.sampled_from(EVENTS)) for _ in range(n_envs)]
            step = stream.step(events)
            seen.append((observations, step.actions))
            rollout.add_decision(
                torch.as_tensor(observations),
                stack_reset,
                torch.as_tensor(step.actions),
                torch.zeros(n_envs),
                torch.zeros(n_envs),
            )
            rollout.add(step.rewards, np.zeros(n_envs, dtype=bool))
            observations = step.observations
            stack_reset = np.array([event in ("ended", "cut off") for event in events])
        assert rollout.full
        order = torch.randperm(length * n_envs)
        batch = rollout.batch(order)
        stacks, actions = (np.concatenate(column) for column in zip(*seen, strict=True))
        np.testing.assert_array_equal(batch.observations.numpy(), stacks[order.numpy()])
        np.testing.assert_array_equal(batch.actions.numpy(), actions[order.numpy()])


def test_each_frame_is_stored_once() -> None:
    codec = PixelCodec(FrameStacking(depth=4, channels=1), (4, 84, 84))
    rollout = FrameRollout(128, 8, codec)
    assert rollout.frames.nbytes == (128 + 3) * 8 * 84 * 84
    assert rollout.nbytes < 1.05 * 128 * 8 * 84 * 84


def test_an_environment_wrapped_in_another_stack_is_refused() -> None:
    with pytest.raises(UserError, match=r"stacks 2 frames of 1 channels, but .* have 6 channels"):
        PPO("CnnPolicy", VecFrameStack(WorldVecEnv(Columns(), depth=2), 3), n_steps=8, device="cpu")


# -- advantages ------------------------------------------------------------------------------------


def advantages(
    rewards: list[float],
    values: list[float],
    starts: list[bool],
    last_value: float,
    done: bool,
    gamma: float,
    gae_lambda: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Advantages and returns (steps,) of one environment."""
    rollout = FrameRollout(len(rewards), 1, TINY_FRAMES, gae_lambda=gae_lambda, gamma=gamma)
    for reward, value, start in zip(rewards, values, starts, strict=True):
        rollout.add_decision(
            torch.zeros((1, 1, 2, 2), dtype=torch.uint8),
            np.array([start]),
            torch.zeros(1, dtype=torch.int64),
            torch.tensor([value]),
            torch.zeros(1),
        )
        rollout.add(np.array([reward], dtype=np.float32), np.array([start]))
    rollout.compute_returns_and_advantage(torch.tensor([last_value]), np.array([done]))
    return rollout.advantages.numpy()[:, 0], rollout.returns.numpy()[:, 0]


GAMMA = 0.9


def geometric(ratio: float, terms: np.ndarray) -> np.ndarray:
    """1 + ratio + ratio^2 + ..., so many terms."""
    return terms if ratio == 1 else (1 - ratio**terms) / (1 - ratio)


@pytest.mark.parametrize("gae_lambda", [0, 0.95, 1])
def test_a_constant_reward_without_end_is_worth_a_geometric_series(gae_lambda: float) -> None:
    # Every temporal difference is 1 + 0.9 * 3 - 3 = 0.7.
    steps = 10
    got, returns = advantages(
        [1] * steps, [3] * steps, [True] + [False] * 9, 3, False, GAMMA, gae_lambda
    )
    terms = np.arange(steps, 0, -1)
    expected = 0.7 * geometric(GAMMA * gae_lambda, terms)
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    np.testing.assert_allclose(returns, expected + 3, rtol=1e-5)


@pytest.mark.parametrize("gae_lambda", [0, 0.95, 1])
def test_nothing_is_carried_back_over_an_end(gae_lambda: float) -> None:
    # Episodes of 4 and 6 steps; at their ends the difference is 1 - 3 = -2.
    starts = [True, *[False] * 3, True, *[False] * 5]
    got, _ = advantages([1] * 10, [3] * 10, starts, 123, True, GAMMA, gae_lambda)
    ratio = GAMMA * gae_lambda
    left = np.array([3, 2, 1, 0, 5, 4, 3, 2, 1, 0])
    expected = 0.7 * geometric(ratio, left) - 2 * float(ratio) ** left
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_true_values_have_no_advantage_and_lambda_1_gives_the_true_return() -> None:
    rewards = [0.0, 0, 2, 0, 1]
    discounted = [GAMMA**2 * 2 + GAMMA**4, GAMMA * 2 + GAMMA**3, 2 + GAMMA**2, GAMMA, 1]
    starts = [True, *[False] * 4]
    for gae_lambda in (0, 0.95, 1):
        got, _ = advantages(rewards, discounted, starts, 5, True, GAMMA, gae_lambda)
        np.testing.assert_allclose(got, 0, atol=1e-6)
    _, returns = advantages(rewards, [7, -3, 0, 1, 4], starts, 5, True, GAMMA, 1)
    np.testing.assert_allclose(returns, discounted, rtol=1e-5)


@pytest.mark.parametrize("gae_lambda", [0, 0.95, 1])
def test_they_equal_those_of_stable_baselines3(gae_lambda: float) -> None:
    rng = np.random.default_rng(0)
    steps, n_envs = 20, 3
    spaces_ = spaces.Box(0, 255, (1, 2, 2), np.uint8), spaces.Discrete(2)
    ours = FrameRollout(steps, n_envs, TINY_FRAMES, gae_lambda=gae_lambda, gamma=GAMMA)
    theirs = RolloutBuffer(steps, *spaces_, "cpu", gae_lambda, GAMMA, n_envs)
    for _ in range(steps):
        observations = np.zeros((n_envs, 1, 2, 2), dtype=np.uint8)
        rewards, values = rng.normal(size=(2, n_envs)).astype(np.float32)
        starts = rng.random(n_envs) < 0.3
        actions, value = np.zeros(n_envs, dtype=np.int64), torch.as_tensor(values)
        theirs.add(observations, actions, rewards, starts, value, torch.zeros(n_envs))
        observation, action = torch.as_tensor(observations), torch.as_tensor(actions)
        ours.add_decision(observation, starts, action, value, torch.zeros(n_envs))
        ours.add(rewards, starts)
    last_values, dones = torch.as_tensor(rng.normal(size=n_envs)).float(), np.array([1, 0, 0]) > 0
    for buffer in (ours, theirs):
        buffer.compute_returns_and_advantage(last_values, dones)
    np.testing.assert_allclose(ours.advantages.numpy(), theirs.advantages, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(ours.returns.numpy(), theirs.returns, rtol=1e-5, atol=1e-6)


def small_ppo(venv: Any, **options: Any) -> PPO:
    chosen = {"n_steps": 8, "batch_size": 8, "n_epochs": 1, "gamma": GAMMA, "seed": 0, **options}
    return PPO("CnnPolicy", venv, policy_kwargs=TINY, device="cpu", **chosen)


@pytest.mark.parametrize("gae_lambda", [0, 0.95, 1])
def test_a_truncated_episode_is_worth_what_would_have_followed(gae_lambda: float) -> None:
    """In an environment with reward 1 at each step, cut off at every third."""
    model = small_ppo(WorldVecEnv(Clock(), 1), n_steps=12, batch_size=12, gae_lambda=gae_lambda)
    with torch.no_grad():
        model.policy.value_net.weight.zero_()
        model.policy.value_net.bias.fill_(3)
    model.learn(12)
    # As if nothing had been cut off, every difference is 1 + 0.9 * 3 - 3 = 0.7.
    left = np.array([3, 2, 1] * 4)
    expected = 0.7 * geometric(GAMMA * gae_lambda, left)
    np.testing.assert_allclose(model.rollout_buffer.advantages[:, 0], expected, rtol=1e-5)


def test_a_truncated_episode_is_worth_its_own_last_observation() -> None:
    games = AtariVecEnv(
        "ALE/Breakout-v5", 2, obs_size=36, frame_stack=2, num_threads=1, max_episode_steps=5
    )
    recorder = ObservationRecorder(games)
    model = small_ppo(recorder)
    before = copy.deepcopy(model.policy)
    model.learn(16)
    stored = model.rollout_buffer.rewards.numpy()
    cut = 0
    for step, (infos, rewards) in enumerate(zip(recorder.infos, recorder.rewards, strict=True)):
        for env, info in enumerate(infos):
            expected = rewards[env]
            if info.get("TimeLimit.truncated"):
                last = torch.as_tensor(info["terminal_observation"])[None]
                with torch.no_grad():
                    expected = expected + GAMMA * before.predict_values(last).item()
                cut += 1
            assert stored[step, env] == pytest.approx(expected, abs=1e-6)
    assert cut == 2
    recorder.close()


def test_a_lost_life_ends_the_episode_but_not_the_stack() -> None:
    games = AtariVecEnv("ALE/Breakout-v5", 1, obs_size=36, frame_stack=4, num_threads=1, seed=2)
    recorder = ObservationRecorder(games)
    model = small_ppo(recorder, n_steps=100, batch_size=100, seed=1)
    model.learn(100)
    after = [step + 1 for step, (info,) in enumerate(recorder.infos[:-1]) if "life_loss" in info]
    assert after, "no life was lost"
    rollout = model.rollout_buffer
    starts = np.flatnonzero(rollout.episode_starts[:, 0].numpy())
    assert starts.tolist() == [0, *after]
    oldest = rollout.observations(torch.as_tensor(after))[:, 0]
    assert (oldest.flatten(1).sum(1) > 0).all(), "the stack began anew"
    recorder.close()
