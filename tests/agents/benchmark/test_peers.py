"""Other libraries' agents at the same settings."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch
from stable_baselines3 import DQN, PPO
from support.tiny_agents import Watched, tiny

from agents.benchmark import peers
from agents.benchmark.peers import (
    list_peers,
    peer_variants,
    register_peer,
    sb3_hyperparameters,
)
from agents.config import TrainConfig
from agents.measure.learners import our_agent
from agents.presets import preset_config
from agents.train.checkpoint import encoder_extractor
from envs.errors import UserError
from envs.make import make_vec_env


@pytest.fixture
def another(tmp_path: Path) -> Iterator[str]:
    """A peer registered for a test."""

    @register_peer("another")
    def variants(config: TrainConfig) -> peers.Variants:
        return {"plain": partial(Watched, tmp_path / "log", least_steps=config.num_envs)}

    yield "another"
    del peers._PEERS["another"]


def test_another_library_can_be_registered(another: str) -> None:
    assert list_peers() == [another, "sb3", "uncached"]
    (make,) = peer_variants(another, tiny("ppo", num_envs=5)).values()
    assert make().least_steps == 5
    with pytest.raises(ValueError, match='"another" is already registered'):
        register_peer("another")(lambda config: {})
    with pytest.raises(ValueError, match='"ours"'):
        register_peer("ours")(lambda config: {})


def test_an_unknown_one_is_refused_in_one_line() -> None:
    with pytest.raises(
        UserError, match=r'"sb2" is unknown: expected one of sb3, uncached\. Did you mean "sb3"'
    ):
        peer_variants("sb2", tiny("ppo"))


def test_stable_baselines_gets_the_literatures_values() -> None:
    options = sb3_hyperparameters(preset_config("zoo", "ppo").with_batch_size())
    learning_rate, clip_range = options.pop("learning_rate"), options.pop("clip_range")
    assert (learning_rate(1.0), learning_rate(0.5)) == (2.5e-4, 1.25e-4)
    assert (clip_range(1.0), clip_range(0.5)) == (0.1, 0.05)
    assert options == {
        "n_steps": 128,
        "batch_size": 256,
        "n_epochs": 4,
        "gamma": 0.99,
        "gae_lambda": 0.95,
        "clip_range_vf": None,
        "normalize_advantage": True,
        "ent_coef": 0.01,
        "vf_coef": 0.5,
        "max_grad_norm": 0.5,
        "target_kl": None,
    }


@pytest.mark.parametrize(
    "num_envs, gradient_steps, vector_steps, updates",
    [(1, 1, 4, 1), (8, 1, 1, 2), (3, 1, 4, 3), (2, 3, 2, 3), (8, -1, 1, -1)],
)
def test_stable_baselines_makes_as_many_updates_for_each_step(
    num_envs: int, gradient_steps: int, vector_steps: int, updates: int
) -> None:
    config = preset_config("zoo", "dqn")
    config = replace(
        config, num_envs=num_envs, dqn=replace(config.dqn, gradient_steps=gradient_steps)
    )
    options = sb3_hyperparameters(config)
    assert (options["train_freq"], options["gradient_steps"]) == (vector_steps, updates)
    assert options["learning_rate"] == 1e-4


@pytest.mark.parametrize("algo, algorithm", [("ppo", PPO), ("dqn", DQN)])
def test_stable_baselines_own_agent_plays_the_same_game(algo: Any, algorithm: type) -> None:
    config = tiny(algo)
    variants = peer_variants("sb3", config)
    assert list(variants) == ["DummyVecEnv", "SubprocVecEnv"]
    learner = pickle.loads(pickle.dumps(variants["DummyVecEnv"]))()
    model = learner.model
    ours = make_vec_env(config.env, 2, obs_size=44)
    # Its own class and network, not those derived from them.
    assert type(model) is algorithm
    assert model.policy.features_extractor_class.__name__ == "NatureCNN"
    assert model.env.num_envs == 2
    assert model.observation_space == ours.observation_space
    assert model.action_space == ours.action_space
    assert model.batch_size == getattr(config, algo).batch_size
    ours.close()
    learner.close()


@pytest.mark.parametrize(
    "part",
    [
        {"head_units": 64},
        {"head": "qr"},
        {"noisy": True},
        {"double": True},
        {"munchausen": True},
        {"loss": "mse"},
        {"prioritized": True},
        {"augment": "drq"},
    ],
)
def test_stable_baselines_does_not_have_the_parts_of_variants(part: dict[str, Any]) -> None:
    config = tiny("dqn")
    assert peer_variants("sb3", replace(config, dqn=replace(config.dqn, **part))) == {}


def test_its_game_is_the_one_without_frame_skip() -> None:
    config = tiny("ppo")
    learner = peer_variants("sb3", config)["DummyVecEnv"]()
    game, _ = learner.model.env.get_attr("unwrapped")
    old: Any = gym.make("PongNoFrameskip-v4").unwrapped
    # All that the emulator is made with; nothing is rendered before it is asked for.
    assert game._ezpickle_kwargs == {**old._ezpickle_kwargs, "render_mode": "rgb_array"}
    learner.close()


def test_an_encoder_of_ours_looks_for_it_too() -> None:
    config = tiny("ppo", encoder="lenet")
    learner = peer_variants("sb3", config)["DummyVecEnv"]()
    assert learner.model.policy.features_extractor.encoder.name == "lenet"
    learner.close()


def test_what_does_not_fit_into_memory_is_made_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny("dqn")
    each = 2 * 4 * 44 * 44
    monkeypatch.setattr(peers, "available_memory", lambda device: 300 * each)
    variants = peer_variants("sb3", config)
    assert next(iter(variants)) == "DummyVecEnv, a replay of 300"
    learner = variants["DummyVecEnv, a replay of 300"]()
    assert learner.model.buffer_size == 300
    learner.close()


def test_colour_is_refused_in_one_line() -> None:
    with pytest.raises(UserError, match="make grey observations: use --obs grey"):
        peer_variants("sb3", tiny("ppo", obs="rgb"))


@pytest.mark.slow
@pytest.mark.parametrize("algo", ["ppo", "dqn"])
def test_a_frozen_encoder_is_measured_beside_itself_uncached(algo: Any) -> None:
    options = {"pooling": "mean", "features_dim": 8}
    config = tiny(
        algo, mode="frozen", encoder="squeezenet1_1:features.3", encoder_options=options
    ).resolve()
    learners = [our_agent(config)]
    learners += [
        pickle.loads(pickle.dumps(make))() for make in peer_variants("uncached", config).values()
    ]
    seen: list[int] = []
    for learner in learners:
        model: Any = learner.model  # type: ignore[attr-defined]
        extractor = encoder_extractor(model)
        assert extractor is not None
        trunk = extractor.encoder.trunk
        before = [parameter.clone() for parameter in trunk.parameters()]
        seen.append(0)

        def count(_: Any, inputs: tuple[torch.Tensor]) -> None:
            seen[-1] += len(inputs[0])

        trunk.register_forward_pre_hook(count)
        learner.learn(learner.warm_up_steps + learner.least_steps)
        assert all(map(torch.equal, before, trunk.parameters()))
        learner.close()
    # For every minibatch again, not once for every frame.
    assert seen[1] > 3 * seen[0] > 0


def test_without_a_frozen_encoder_there_is_nothing_uncached() -> None:
    with pytest.raises(UserError, match="is what --mode frozen is measured beside, not --mode tra"):
        peer_variants("uncached", tiny("ppo"))
