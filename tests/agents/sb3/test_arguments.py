"""Arguments of an agent work, or are refused in one line."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import DQN as SB3DQN
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import FakeImageEnv
from stable_baselines3.common.policies import ActorCriticCnnPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor
from stable_baselines3.common.vec_env import VecEnv
from torch import nn, optim

from agents.dqn.agent import DQN
from agents.ppo.agent import PPO
from envs.errors import UserError

SIZE = 40
LENET = {"encoder": "lenet", "encoder_options": {"features_dim": 8}}
OPTIONS: dict[Any, dict[str, Any]] = {
    PPO: {"n_steps": 8, "batch_size": 16, "n_epochs": 1},
    DQN: {"buffer_size": 200, "learning_starts": 8, "batch_size": 8, "train_freq": 4},
}

both = pytest.mark.parametrize("algorithm", [PPO, DQN])


def make_image_env() -> FakeImageEnv:
    return FakeImageEnv(screen_height=SIZE, screen_width=SIZE, n_channels=1, discrete=True)


def images() -> VecEnv:
    return make_vec_env(make_image_env, 2, seed=0)


def make(algorithm: Any, **options: Any) -> Any:
    arguments = {"policy": "CnnPolicy", "seed": 0, "device": "cpu", **OPTIONS[algorithm], **options}
    policy_kwargs = {"features_extractor_kwargs": LENET, **arguments.pop("policy_kwargs", {})}
    env = arguments.pop("env") if "env" in arguments else images()
    return algorithm(env=env, policy_kwargs=policy_kwargs, **arguments)


class NeedsWidth(BaseFeaturesExtractor):
    def __init__(self, space: Any, width: int) -> None:
        super().__init__(space, width)


class OwnPolicy(ActorCriticCnnPolicy):
    pass


def extractor(**arguments: Any) -> dict[str, Any]:
    return {"policy_kwargs": {"features_extractor_kwargs": arguments}}


def policy(**arguments: Any) -> dict[str, Any]:
    return {"policy_kwargs": arguments}


ACTIVATION = "activation_fn must be a class of activations, such as torch.nn.ReLU, not"
OPTIMIZER = "optimizer_class must be a class of optimizers, such as torch.optim.Adam, not"
REFUSED: list[tuple[Any, dict[str, Any], str]] = [
    (PPO, policy(features_extractor_class=CombinedExtractor), "is for dict observations"),
    (PPO, policy(features_extractor_class=BaseFeaturesExtractor), "must be a subclass of"),
    (
        PPO,
        policy(features_extractor_class=NeedsWidth, features_extractor_kwargs={}),
        'features_extractor_kwargs lacks "width", which NeedsWidth needs',
    ),
    (PPO, policy(features_extractor_kwargs=["lenet"]), "features_extractor_kwargs must be a dict"),
    (PPO, policy(activation_fn="relu"), f"{ACTIVATION} 'relu'"),
    (PPO, policy(activation_fn=nn.ReLU()), f"{ACTIVATION} ReLU()"),
    (PPO, policy(activation_fn=torch.relu), f"{ACTIVATION} <built-in"),
    (PPO, policy(activation_fn=nn.GLU), f"{ACTIVATION} <class 'torch.nn.modules.activation.GLU'>"),
    (DQN, policy(optimizer_class="adam"), f"{OPTIMIZER} 'adam'"),
    (DQN, policy(optimizer_class=nn.ReLU), "optimizer_class ReLU does not work: "),
    (DQN, policy(optimizer_class=nn.Identity), "must make an optimizer"),
    (PPO, policy(optimizer_class=optim.LBFGS), "LBFGS is not supported: it computes the loss"),
    (PPO, policy(optimizer_class=optim.SparseAdam), "SparseAdam is not supported: gradients are"),
    (PPO, policy(optimizer_kwargs={"epz": 1}), "optimizer_kwargs {'epz': 1} does not work"),
    (PPO, policy(optimizer_kwargs={"eps": -1}), "Invalid epsilon value: -1"),
    (DQN, policy(optimizer_kwargs={"lr": 1}), "must not have lr: set learning_rate of the agent"),
    (DQN, policy(optimizer_kwargs={"params": []}), "optimizer_kwargs must not have params"),
    (DQN, policy(optimizer_kwargs=[1]), "optimizer_kwargs must be a dict, not [1]"),
    (PPO, policy(squash_output=True), "squash_output is not supported"),
    (DQN, policy(share_features_extractor=True), "only PPO's policy has it: leave it out"),
    (PPO, {"policy_kwargs": {3: 4}}, "policy_kwargs must have names as keys, not 3"),
    (PPO, extractor(encoder=3), "encoder must be a name, such as"),
    (DQN, extractor(encoder=nn.Conv2d(1, 2, 3)), "a network of your own becomes a subclass of"),
    (PPO, extractor(encoder="lenet", encoder_options="features_dim=8"), "encoder_options must be"),
    (PPO, extractor(encoder="lenet", weights=3), "weights must be the path of a file"),
    (PPO, {"policy": OwnPolicy}, "a subclass of agents.networks.policies.PixelActorCriticPolicy"),
    (PPO, {"env": make_image_env}, "env is a function: call it, or give DummyVecEnv([make_env])"),
    (DQN, {"env": [make_image_env]}, "env is a list: give one environment, or DummyVecEnv("),
    (PPO, {"env": FakeImageEnv}, "env is a class: give an instance of it, FakeImageEnv("),
    (PPO, {"env": gym.vector.SyncVectorEnv([make_image_env])}, "env is a vector of Gymnasium"),
    (PPO, {"env": 3}, "env must be an environment or its id, not 3"),
    (PPO, {"env": "FakeImage-v0"}, 'env "FakeImage-v0" is not made: '),
    (PPO, {"env": "no_module:Image-v0"}, "No module named 'no_module'"),
    (PPO, {"device": "mps"}, 'device "mps" is not supported'),
    (DQN, {"device": "gpu"}, 'unknown device "gpu": expected auto, cpu, cuda or cuda:N. Did you'),
    (DQN, {"device": None}, 'unknown device "None"'),
    (PPO, {"n_epochs": 0}, "n_epochs must be at least 1, not 0"),
    (PPO, {"n_epochs": 1.5}, "n_epochs must be a whole number, not 1.5"),
    (PPO, {"batch_size": "16"}, "batch_size must be a whole number, not '16'"),
    (DQN, {"buffer_size": 1e6}, "buffer_size must be a whole number, not 1000000.0"),
]


@pytest.mark.parametrize(("algorithm", "options", "said"), REFUSED, ids=[r[2] for r in REFUSED])
def test_an_argument_that_cannot_serve_is_refused(
    algorithm: Any, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError) as refusal:
        make(algorithm, **options)
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert "saved by another algorithm" not in str(refusal.value)


@pytest.mark.parametrize(
    "options",
    [
        policy(activation_fn=functools.partial(nn.LeakyReLU, 0.1), net_arch=[8]),
        policy(optimizer_class=functools.partial(optim.AdamW, weight_decay=0.1)),
        {"batch_size": np.int64(8)},
    ],
    ids=["activation", "optimizer", "numpy integer"],
)
@both
def test_what_stable_baselines3_takes_serves(algorithm: Any, options: dict[str, Any]) -> None:
    assert make(algorithm, **options).learn(24)._n_updates


def test_predict_takes_every_float_and_refuses_what_makes_no_array() -> None:
    model = make(PPO)
    pixels = torch.arange(SIZE * SIZE).reshape(1, SIZE, SIZE) % 256
    expected, _ = model.predict(pixels, deterministic=True)
    assert model.predict(pixels.bfloat16(), deterministic=True)[0] == expected
    for given in ([[1, 2], [3]], [torch.zeros(1, SIZE, SIZE, dtype=torch.bfloat16)]):
        with pytest.raises(UserError, match=r"images \(1, 40, 40\) .*; this list makes no array"):
            model.predict(given)


@both
def test_an_agent_loaded_without_an_environment_says_what_to_do(
    algorithm: Any, tmp_path: Path
) -> None:
    make(algorithm).save(tmp_path / "model")
    model = algorithm.load(tmp_path / "model", device="cpu")
    with pytest.raises(UserError, match=r"has no environment: call set_env\(env\) first"):
        model.learn(8)
    model.set_env(images())
    model.learn(8)
    for options, said in (({"env": images}, "env is a function"), ({"device": "gpu"}, "unknown")):
        with pytest.raises(UserError, match=said):
            algorithm.load(tmp_path / "model", **options)


@both
def test_arguments_of_the_policy_come_from_the_file(algorithm: Any, tmp_path: Path) -> None:
    model = make(algorithm)
    model.save(tmp_path / "model")
    load = functools.partial(algorithm.load, tmp_path / "model", device="cpu")
    load(policy_kwargs=model.policy_kwargs)
    with pytest.raises(UserError, match=r"leave them out of load\(\), which takes them"):
        load(policy_kwargs={"net_arch": [8]})


@pytest.mark.parametrize(
    ("space", "said"),
    [
        (spaces.Box(0, 255, (40, 40), np.uint8), r"ReshapeObservation\(env, \(40, 40, 1\)\)"),
        (spaces.Box(0, 255, (4, 40, 40, 3), np.uint8), "VecFrameStack stacks frames as channels"),
        (spaces.Box(0, 1, (1, 40, 40)), "TransformObservation turns each into uint8"),
        (spaces.Box(0, 1, (4,)), r"gives Box float32 \(4,\)$"),
        (
            spaces.Dict(
                speed=spaces.Box(0, 1, (2,)), eye=spaces.Box(0, 255, (40, 40, 3), np.uint8)
            ),
            r'VecExtractDictObs\(venv, "eye"\) hands on those alone',
        ),
    ],
)
def test_observations_that_are_nearly_images_are_refused_with_a_hint(
    space: spaces.Space, said: str
) -> None:
    env = make_image_env()
    env.observation_space = space
    with pytest.raises(UserError, match=said):
        make(PPO, env=env)


def test_a_rollout_gives_every_transition_once() -> None:
    model = make(PPO)
    with pytest.raises(UserError, match=r"holds 0 of 8 steps: call learn\(\) first"):
        model.rollout_buffer.get(4)
    rollout = model.learn(16).rollout_buffer
    batches = list(rollout.get(6))
    assert [len(batch.returns) for batch in batches] == [6, 6, 4]
    given = torch.cat([batch.returns for batch in batches])
    assert given.sort().values.tolist() == rollout.returns.flatten().sort().values.tolist()
    (everything,) = rollout.get()
    assert everything.observations.shape == (16, 1, SIZE, SIZE)


def test_a_replay_is_sampled_and_emptied_as_in_stable_baselines3(tmp_path: Path) -> None:
    model = make(DQN, n_steps=3).learn(32)
    replay = model.replay_buffer
    batch = replay.sample(4)
    assert batch.observations.shape == (4, 1, SIZE, SIZE)
    # One step each, though the agent sums three.
    assert set(batch.rewards.tolist()) <= set(replay.rewards.flatten().tolist())
    assert set(batch.discounts.tolist()) <= {0.0, 1.0}
    replay.reset()
    replay.check_valid()
    assert (len(replay), replay.size(), replay.full) == (0, 0, False)
    with pytest.raises(UserError, match="no transition to sample"):
        replay.sample(4)
    updates = model._n_updates
    model.save_replay_buffer(tmp_path / "replay")
    model.load_replay_buffer(tmp_path / "replay")
    # As after construction, learning_starts steps come first.
    model.learn(4, reset_num_timesteps=False)
    assert (model._n_updates, len(replay)) == (updates, 4)
    model.learn(24, reset_num_timesteps=False)
    assert model._n_updates > updates
    replay.check_valid()


def test_a_pickled_replay_is_refused_as_such(tmp_path: Path) -> None:
    theirs = SB3DQN("CnnPolicy", images(), buffer_size=8, device="cpu")
    theirs.save_replay_buffer(tmp_path / "replay")
    with pytest.raises(
        UserError, match="stable-baselines3's own DQN are pickles and cannot be read"
    ):
        make(DQN).load_replay_buffer(tmp_path / "replay.pkl")
