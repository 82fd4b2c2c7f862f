"""PPO as stable-baselines3's users meet it: callbacks, refusals, files and predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import PPO as SB3PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import VecNormalize
from support.callback_events import Recorder
from support.ppo_agents import TINY, StopAt, make_ppo
from support.toy_envs import Columns, WorldVecEnv

from agents.ppo.agent import PPO
from envs.errors import UserError
from envs.stacking import FrameStacking
from rlcnn.sb3 import EncoderExtractor


def test_callbacks_fire_where_stable_baselines3_fires_them() -> None:
    ours = make_ppo(n_envs=2, batch_size=16)
    theirs = SB3PPO(
        "CnnPolicy",
        WorldVecEnv(Columns(), 2),
        n_steps=8,
        batch_size=16,
        n_epochs=2,
        policy_kwargs={"features_extractor_class": EncoderExtractor, **TINY},
        device="cpu",
    )
    records = []
    for model in (ours, theirs):
        model.set_logger(Logger(None, []))
        recorder = Recorder(logged=True)
        # 40 steps are two rollouts and a half: a third is begun.
        model.learn(40, callback=recorder)
        model.learn(16, callback=recorder, reset_num_timesteps=False)
        records.append(recorder.events)
    assert records[0] == records[1]
    assert [event[0] for event in records[0]].count("rollout ends") == 4


def test_steps_never_learned_from_are_not_counted() -> None:
    model = make_ppo()
    recorder = Recorder(logged=True)
    model.learn(1000, callback=[StopAt(64 * 2 + 24), recorder])
    assert model.num_timesteps == 64 * 2
    assert model._n_updates == 2 * 2
    assert recorder.events[-1][0] == "training ends"
    # It goes on in the middle of the same games.
    model.learn(64, reset_num_timesteps=False)
    assert model.num_timesteps == 64 * 3
    assert model._n_updates == 2 * 3


def test_progress_is_that_of_the_steps() -> None:
    model = make_ppo(learning_rate=lambda progress: 1e-4 * progress)
    rates = []

    class Rates(BaseCallback):
        def _on_step(self) -> bool:
            return True

        def _on_rollout_start(self) -> None:
            rates.append(model.policy.optimizer.param_groups[0]["lr"])

        _on_training_end = _on_rollout_start

    model.learn(256, callback=Rates())
    assert rates[1:] == pytest.approx([0.75e-4, 0.5e-4, 0.25e-4, 0])


# -- refusals --------------------------------------------------------------------------------------

IMAGES = spaces.Box(0, 255, (1, 36, 36), np.uint8)
TWO = spaces.Discrete(2)


class Anything(gym.Env):
    """An environment of the given spaces, which nobody steps."""

    def __init__(self, observations: spaces.Space, actions: spaces.Space) -> None:
        self.observation_space, self.action_space = observations, actions


@pytest.mark.parametrize(
    ("observations", "actions", "said"),
    [
        (IMAGES, spaces.Box(-1, 1, (2,)), "actions must be Discrete"),
        (IMAGES, spaces.MultiDiscrete([2, 2]), "actions must be Discrete"),
        (IMAGES, spaces.Discrete(2, start=1), "actions must count from 0"),
        (spaces.Dict({"image": IMAGES}), TWO, "observations must be uint8 images"),
        (spaces.Box(0, 1, (1, 36, 36), np.float32), TWO, "observations must be uint8 images"),
        (spaces.Box(0, 255, (36, 36), np.uint8), TWO, "observations must be uint8 images"),
        (spaces.Box(-1, 1, (4,)), TWO, "observations must be uint8 images"),
    ],
)
def test_what_it_cannot_learn_from_is_refused_in_one_line(
    observations: spaces.Space, actions: spaces.Space, said: str
) -> None:
    with pytest.raises(UserError, match=said) as refusal:
        PPO("CnnPolicy", Anything(observations, actions), device="cpu")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"use_sde": True}, "use_sde is not supported"),
        ({"clip_range_vf": 0}, "clip_range_vf must be positive; None does not clip values"),
        ({"rollout_buffer_class": RolloutBuffer}, "rollout_buffer_class is not supported"),
        ({"rollout_buffer_kwargs": {"a": 1}}, "rollout_buffer_class is not supported"),
        ({"policy_kwargs": {"share_features_extractor": False}}, "one encoder serves"),
        (
            {"policy_kwargs": {"precision": "fp16"}},
            'precision must be one of "fp32", "tf32", "bf16"',
        ),
        (
            {"batch_size": 60},
            r"batch_size 60 does not divide the rollout of 64 steps \(8 environments x 8 steps\);"
            " the nearest that does is 64",
        ),
        ({"batch_size": 24}, "the nearest that does is 16"),
        ({"batch_size": 1}, "batch_size 1 has no spread"),
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
        ({"n_steps": 0}, "n_steps must be at least 1, not 0"),
    ],
)
def test_what_is_not_supported_is_refused_in_one_line(
    options: dict[str, Any], said: str, recwarn: pytest.WarningsRecorder
) -> None:
    with pytest.raises(UserError, match=said) as refusal:
        make_ppo(**options)
    assert "\n" not in str(refusal.value)
    assert not [w for w in recwarn if "mini-batch" in str(w.message)]


def test_a_normalising_wrapper_is_refused() -> None:
    with pytest.raises(UserError, match="VecNormalize would normalize the images"):
        PPO("CnnPolicy", VecNormalize(WorldVecEnv(Columns())), device="cpu")


# -- stable-baselines3's own tools -----------------------------------------------------------------


def test_saving_and_loading_by_stable_baselines3(tmp_path: Path) -> None:
    model = make_ppo(Columns(1), depth=2, clip_range=0.3, target_kl=0.5)
    model.learn(64)
    model.save(tmp_path / "agent")
    observations = model.env.reset()  # type: ignore[union-attr]
    expected, _ = model.predict(observations, deterministic=True)  # type: ignore[arg-type]

    alone = PPO.load(tmp_path / "agent", device="cpu")
    got, _ = alone.predict(observations, deterministic=True)  # type: ignore[arg-type]
    np.testing.assert_array_equal(got, expected)
    assert (alone.num_timesteps, alone.target_kl, alone.n_steps) == (64, 0.5, 8)
    for name, tensor in model.policy.state_dict().items():
        torch.testing.assert_close(alone.policy.state_dict()[name], tensor, rtol=0, atol=0)

    alone.set_env(WorldVecEnv(Columns(1), 8, depth=2))
    assert alone.rollout_buffer.codec.frame_stacking == FrameStacking(depth=2, channels=1)
    alone.learn(64, reset_num_timesteps=False)
    assert alone.num_timesteps == 128

    wider = PPO.load(tmp_path / "agent", env=WorldVecEnv(Columns(1), 16, depth=2), device="cpu")
    wider.learn(128, reset_num_timesteps=False)
    assert wider.num_timesteps == 64 + 128


def test_predict_takes_one_observation_or_many() -> None:
    model = make_ppo()
    one, _ = model.predict(np.zeros((1, 36, 36), np.uint8))
    many, _ = model.predict(np.zeros((5, 1, 36, 36), np.uint8))
    assert np.shape(one) == ()
    assert np.shape(many) == (5,)
