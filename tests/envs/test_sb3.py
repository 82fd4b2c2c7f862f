"""Stable-baselines3's own tools on our environments report whole, unclipped games."""

import numpy as np
import pytest
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecTransposeImage, is_vecenv_wrapped

from envs import AtariVecEnv

ENV_ID = "ALE/Breakout-v5"


class Scripted:
    """A policy that plays the same random actions every time."""

    def __init__(self, num_actions: int) -> None:
        self.num_actions = num_actions
        self.rng = np.random.default_rng(0)

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return self.rng.integers(self.num_actions, size=len(observation)), state


def whole_games(model, num_envs: int, games: int, seed: int) -> tuple[list[float], list[int]]:
    """Unclipped returns and lengths, added up here from an environment that changes neither."""
    env = AtariVecEnv(ENV_ID, num_envs, training=False, seed=seed)
    observations, sums, lengths = env.reset(), np.zeros(num_envs), np.zeros(num_envs, int)
    played: list[tuple[float, int]] = []
    counts = np.zeros(num_envs, int)
    while counts.min() < games // num_envs:
        actions, _ = model.predict(observations, deterministic=True)
        observations, rewards, dones, _ = env.step(actions)
        sums += rewards
        lengths += 1
        for i in np.flatnonzero(dones):
            if counts[i] < games // num_envs:
                played.append((sums[i], lengths[i]))
            counts[i] += 1
            sums[i] = lengths[i] = 0
    returns, steps = zip(*played, strict=True)
    return list(returns), list(steps)


def test_evaluate_policy_sees_through_lost_lives_and_clipping():
    env = AtariVecEnv(ENV_ID, 2, training=True, seed=11)
    found = evaluate_policy(
        Scripted(4), env, n_eval_episodes=4, return_episode_rewards=True, warn=True
    )
    returns, lengths = whole_games(Scripted(4), 2, games=4, seed=11)
    assert found == (returns, lengths)
    # One life lasts some 30 steps: these are games of five.
    assert min(lengths) > 80
    assert max(returns) > 0


@pytest.mark.slow
def test_eval_callback_reports_the_same(tmp_path):
    def make(num_envs: int, seed: int) -> AtariVecEnv:
        return AtariVecEnv(
            ENV_ID, num_envs, training=True, obs_size=16, seed=seed, max_episode_steps=150
        )

    env, watched = make(1, seed=0), make(2, seed=11)
    evaluation = EvalCallback(
        watched,
        n_eval_episodes=2,
        eval_freq=8,
        deterministic=False,
        log_path=str(tmp_path),
        verbose=0,
    )
    model = PPO("MlpPolicy", env, n_steps=8, batch_size=8, n_epochs=1, device="cpu", seed=0)
    assert not is_vecenv_wrapped(model.env, VecTransposeImage)
    model.learn(8, callback=evaluation)
    games = np.load(tmp_path / "evaluations.npz")
    assert games["results"].shape == (1, 2)
    assert games["ep_lengths"].min() > 80
    assert evaluation.last_mean_reward == pytest.approx(games["results"].mean())
