"""Habits of stable-baselines3's users: they work as there, or are refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CheckpointCallback,
    EvalCallback,
    StopTrainingOnMaxEpisodes,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import configure
from stable_baselines3.common.torch_layers import NatureCNN
from stable_baselines3.common.vec_env import (
    VecEnvWrapper,
    VecFrameStack,
    VecNormalize,
    VecTransposeImage,
)
from support.image_agents import (
    LEARNED,
    SIZE,
    THEIRS,
    both,
    image_env,
    images,
    make,
)

from agents.dqn.agent import DQN
from agents.ppo.agent import PPO
from envs import PixelVecEnv
from envs.errors import UserError


class Flipped(VecEnvWrapper):
    """Images upside down, as views with a negative stride, of games that are cut off."""

    def reset(self) -> Any:
        return self.venv.reset()[:, :, ::-1]

    def step_wait(self) -> Any:
        observations, rewards, dones, infos = self.venv.step_wait()
        for info in infos:
            info["TimeLimit.truncated"] = True
            if "terminal_observation" in info:
                info["terminal_observation"] = info["terminal_observation"][:, ::-1]
        return observations[:, :, ::-1], rewards, dones, infos


# -- predict ---------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("encoder", ["lenet", "nature"])
@pytest.mark.parametrize("frozen", [False, True])
def test_predict_takes_images_of_any_numbers(algorithm: Any, encoder: str, frozen: bool) -> None:
    kwargs = {"encoder": encoder, "frozen": frozen}
    model = make(algorithm, policy_kwargs={"features_extractor_kwargs": kwargs})
    seen = np.random.default_rng(0).integers(0, 256, (8, SIZE, SIZE, 1)).astype(np.uint8)
    first = seen.transpose(0, 3, 1, 2)
    expected, _ = model.predict(seen, deterministic=True)
    assert expected.shape == (8,)
    kinds: list[Any] = [first, torch.as_tensor(first), first.tolist()]
    kinds += [seen.astype(kind) for kind in (np.float32, np.float64, np.int64)]
    for given in kinds:
        assert (model.predict(given, deterministic=True)[0] == expected).all()
    single, _ = model.predict(seen[0].astype(np.float32), deterministic=True)
    assert single.shape == ()
    assert single == expected[0]
    # Also where the policy is called by hand.
    pixels = torch.as_tensor(first)
    for given in (pixels, pixels.float()):
        assert model.policy._predict(given, deterministic=True).tolist() == expected.tolist()


@both
@pytest.mark.parametrize(
    ("observation", "said"),
    [
        (np.zeros((3, 3), np.uint8), r"not of shape \(3, 3\)"),
        (np.zeros((1, 44, 44), np.uint8), r"not of shape \(1, 44, 44\)"),
        (np.full((1, SIZE, SIZE), -1.0), "pixels of 0 to 255, not of -1 to -1"),
        (np.full((1, SIZE, SIZE), np.nan), "not of nan to nan"),
        (np.full((1, SIZE, SIZE), 256), "not of 256 to 256"),
        (np.full((1, SIZE, SIZE), 0.5), "fractions of at most 1: multiply by 255"),
        (np.full((1, SIZE, SIZE), "a"), "pixels of 0 to 255, not <U1"),
        ({"image": np.zeros((1, SIZE, SIZE))}, "not a dict"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_predict_refuses_what_is_no_image(algorithm: Any, observation: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        make(algorithm).predict(observation)


@both
@pytest.mark.parametrize("frozen", [False, True])
def test_flipped_images_are_taken(algorithm: Any, frozen: bool) -> None:
    kwargs = {"encoder": "lenet", "frozen": frozen}
    env = Flipped(VecTransposeImage(images()))
    model = make(algorithm, env=env, policy_kwargs={"features_extractor_kwargs": kwargs})
    # Games of FakeImageEnv take 10 steps.
    model.learn(LEARNED)
    seen = env.reset()
    expected, _ = model.predict(seen.copy(), deterministic=True)
    assert (model.predict(seen, deterministic=True)[0] == expected).all()


@both
def test_floats_of_another_shape_are_not_taken_for_features(algorithm: Any) -> None:
    model, given = make(algorithm), torch.zeros(2, SIZE, SIZE, 1)
    call = model.policy.predict_values if algorithm is PPO else model.q_net
    with pytest.raises(ValueError, match=r"built for observations \(batch, \*\(1, 40, 40\)\)"):
        call(given)


# -- storage, environments and callbacks -----------------------------------------------------------


@both
def test_parameters_are_put_into_a_vector_and_taken_from_it(algorithm: Any) -> None:
    one, other = make(algorithm, seed=1), make(algorithm, seed=2)
    vector = one.policy.parameters_to_vector()
    other.policy.load_from_vector(vector)
    np.testing.assert_array_equal(other.policy.parameters_to_vector(), vector)
    parameters = zip(one.policy.parameters(), other.policy.parameters(), strict=True)
    assert all(torch.equal(first, second) for first, second in parameters)


def test_storage_tells_its_size() -> None:
    rollout = make(PPO).learn(16).rollout_buffer
    assert rollout.size() == 8
    rollout.reset()
    assert rollout.size() == 0
    model = make(DQN, buffer_size=40)
    model.learn(16)
    assert (model.replay_buffer.size(), model.replay_buffer.full) == (8, False)
    model.learn(60, reset_num_timesteps=False)
    # A game that was cut off takes a place more.
    assert 18 <= model.replay_buffer.size() <= 20
    assert model.replay_buffer.buffer_size == 20
    assert model.replay_buffer.full


@both
@pytest.mark.parametrize("frozen", [False, True])
def test_stacks_that_are_stacked_once_more_are_refused(algorithm: Any, frozen: bool) -> None:
    kwargs = {"encoder": "squeezenet1_1:features.4", "frozen": frozen}
    vector = PixelVecEnv([image_env] * 2, obs_size=SIZE, frame_stack=1)
    with pytest.raises(UserError, match="give it frame_stack=N instead of stacking its"):
        make(
            algorithm,
            env=VecFrameStack(vector, 3),
            policy_kwargs={"features_extractor_kwargs": kwargs},
        ).learn(LEARNED)


def test_rewards_may_be_normalized_for_ppo() -> None:
    venv = VecNormalize(images(), norm_obs=False)
    make(PPO, env=venv).learn(LEARNED)
    assert venv.ret_rms.count > LEARNED / 2
    with pytest.raises(UserError, match="VecNormalize is not supported for DQN: the scale"):
        make(DQN, env=VecNormalize(images(), norm_obs=False))
    make(DQN, env=VecNormalize(images(), norm_obs=False, norm_reward=False)).learn(LEARNED)


@both
def test_normalized_images_are_refused_at_any_door(algorithm: Any) -> None:
    said = r"use VecNormalize\(norm_obs=False\) for the rewards alone"
    with pytest.raises(UserError, match=said):
        make(algorithm, env=VecNormalize(images()))
    model = make(algorithm)
    with pytest.raises(UserError, match=said):
        model.set_env(VecNormalize(images()))
    with pytest.raises(UserError, match="env is None: give an environment"):
        algorithm("CnnPolicy", None)


@both
def test_a_progress_bar_without_tqdm_says_what_to_install(
    algorithm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stable_baselines3.common.callbacks.tqdm", None)
    with pytest.raises(UserError, match="progress_bar=True needs tqdm: pip install tqdm"):
        make(algorithm).learn(LEARNED, progress_bar=True)


@both
def test_learning_for_no_step_is_possible(algorithm: Any) -> None:
    assert make(algorithm).learn(0).num_timesteps == 0


@both
def test_the_usual_callbacks_and_loggers_serve(algorithm: Any, tmp_path: Path) -> None:
    model = make(algorithm, stats_window_size=5, env=VecFrameStack(images(), 2))
    model.set_logger(configure(str(tmp_path), ["log", "csv", "json", "tensorboard"]))
    callbacks = [
        CheckpointCallback(8, str(tmp_path / "checkpoints"), save_replay_buffer=True),
        EvalCallback(
            VecFrameStack(images(1), 2),
            callback_on_new_best=StopTrainingOnRewardThreshold(1e9),
            eval_freq=8,
            n_eval_episodes=1,
            best_model_save_path=str(tmp_path / "best"),
            verbose=0,
        ),
        StopTrainingOnMaxEpisodes(1000),
    ]
    model.learn(LEARNED, callback=callbacks, log_interval=1)
    assert model.ep_info_buffer.maxlen == 5
    best = algorithm.load(tmp_path / "best" / "best_model", device="cpu")
    evaluate_policy(best, VecFrameStack(images(1), 2), n_eval_episodes=1)
    best.set_parameters(tmp_path / "best" / "best_model.zip")
    assert list((tmp_path / "checkpoints").glob("*.zip"))


class FirstLocals(BaseCallback):
    """Keeps the local variables that the first step offers to callbacks."""

    def __init__(self) -> None:
        super().__init__()
        self.first: dict[str, Any] = {}

    def _on_step(self) -> bool:
        self.first = self.first or dict(self.locals)
        return True


@both
def test_callbacks_find_the_usual_local_variables(algorithm: Any) -> None:
    found = {}
    for kind in (algorithm, THEIRS[algorithm]):
        callback = FirstLocals()
        policy = {"policy_kwargs": {"features_extractor_class": NatureCNN}}
        model = make(kind, **policy).learn(LEARNED, callback=callback)
        found[kind] = callback.first
        assert found[kind]["self"] is model
        assert found[kind]["env"] is model.env
    ours, theirs = found[algorithm], found[THEIRS[algorithm]]
    # What acting and storing there compute on the way.
    assert set(theirs) - set(ours) <= {"obs_tensor", "clipped_actions", "buffer_actions"}
    for name in ("actions", "new_obs", "rewards", "dones", "values", "log_probs"):
        assert np.shape(ours.get(name)) == np.shape(theirs.get(name)), name
