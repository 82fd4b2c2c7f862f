"""Agents on a frozen encoder, which sees each frame once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.utils import LinearSchedule
from support.observation_recorder import ObservationRecorder

from agents.dqn.agent import DQN
from agents.ppo.agent import PPO
from agents.storage.samplers import NStepReturns
from envs.atari import AtariVecEnv

PER_FRAME = {
    "encoder": "squeezenet1_1:features.3",
    "encoder_options": {"pooling": "mean", "features_dim": 16},
}
WHOLE = {"encoder": "lenet", "encoder_options": {"features_dim": 16}}
# Whose running statistics must not move either.
BATCH_NORM = {"encoder": "cifar_resnet", "encoder_options": {"depth": 8}}
ENCODERS = pytest.mark.parametrize("encoder", [PER_FRAME, WHOLE], ids=["per frame", "whole stacks"])
N_ENVS, DEPTH = 2, 4


def games(obs: Any = "grey") -> AtariVecEnv:
    return AtariVecEnv(
        "ALE/Breakout-v5",
        N_ENVS,
        obs=obs,
        obs_size=40,
        frame_stack=DEPTH,
        seed=5,
        num_threads=1,
        max_episode_steps=40,
    )


def make(algorithm: type[PPO] | type[DQN], venv: Any, encoder: dict[str, Any]) -> Any:
    options: dict[str, Any] = {
        PPO: {"n_steps": 30, "batch_size": 60, "n_epochs": 1},
        DQN: {"buffer_size": 2_000, "learning_starts": 40, "batch_size": 8},
    }[algorithm]
    kwargs = {"features_extractor_kwargs": {**encoder, "frozen": True}}
    return algorithm("CnnPolicy", venv, policy_kwargs=kwargs, seed=0, device="cpu", **options)


def encoder_of(model: Any) -> Any:
    policy = model.policy
    return (policy.q_net if isinstance(model, DQN) else policy).features_extractor.encoder


class Compare(BaseCallback):
    """After each rollout: the stored features against the whole encoder on the observations."""

    def __init__(self, recorder: ObservationRecorder) -> None:
        super().__init__()
        self.recorder = recorder
        self.rollouts = 0

    def _on_rollout_end(self) -> None:
        rollout = self.model.rollout_buffer  # type: ignore[attr-defined]
        stored = rollout.observations(torch.arange(rollout.buffer_size * rollout.n_envs))
        seen = torch.as_tensor(np.concatenate(self.recorder.seen[-rollout.buffer_size - 1 : -1]))
        assert stored.is_floating_point()
        with torch.no_grad():
            cached = self.model.policy.logits_and_values(stored)  # type: ignore[operator]
            whole = self.model.policy.logits_and_values(seen)  # type: ignore[operator]
        for mine, its in zip(cached, whole, strict=True):
            torch.testing.assert_close(mine, its, rtol=1e-4, atol=1e-5)
        self.rollouts += 1

    def _on_step(self) -> bool:
        return True


@pytest.mark.parametrize(
    "obs, encoder",
    [
        pytest.param("grey", PER_FRAME, id="grey-per frame"),
        pytest.param("grey", WHOLE, id="grey-whole stacks", marks=pytest.mark.slow),
        pytest.param("rgb", PER_FRAME, id="rgb-per frame"),
        pytest.param("rgb", WHOLE, id="rgb-whole stacks", marks=pytest.mark.slow),
    ],
)
def test_what_is_stored_gives_what_the_whole_encoder_gives(
    obs: str, encoder: dict[str, Any]
) -> None:
    recorder = ObservationRecorder(games(obs))
    model = make(PPO, recorder, encoder)
    compare = Compare(recorder)
    model.learn(N_ENVS * 30 * 2, callback=compare)
    assert compare.rollouts == 2
    assert recorder.ends >= {"life lost", "cut off"}
    recorder.close()


@pytest.mark.parametrize(
    "algorithm, encoder",
    [
        pytest.param(PPO, PER_FRAME, id="PPO-per frame"),
        pytest.param(PPO, WHOLE, id="PPO-whole stacks"),
        pytest.param(PPO, BATCH_NORM, id="PPO-BatchNorm", marks=pytest.mark.slow),
        pytest.param(DQN, PER_FRAME, id="DQN-per frame", marks=pytest.mark.slow),
        pytest.param(DQN, WHOLE, id="DQN-whole stacks", marks=pytest.mark.slow),
        pytest.param(DQN, BATCH_NORM, id="DQN-BatchNorm"),
    ],
)
def test_nothing_frozen_moves_and_the_rest_learns(
    algorithm: type[PPO] | type[DQN], encoder: dict[str, Any]
) -> None:
    venv = games()
    model = make(algorithm, venv, encoder)
    parts = torch.nn.ModuleList(encoder_of(model).pretrained_parts())
    before = {name: tensor.clone() for name, tensor in parts.state_dict().items()}
    network = model.policy.q_net if algorithm is DQN else model.policy
    learned = {n: p.clone() for n, p in network.named_parameters() if p.requires_grad}
    model.learn(N_ENVS * 60)
    assert all(torch.equal(tensor, before[n]) for n, tensor in parts.state_dict().items())
    assert not any(module.training for part in parts for module in part.modules())
    moved = {
        n for n, p in network.named_parameters() if n in learned and not torch.equal(p, learned[n])
    }
    assert moved == set(learned)
    venv.close()


@pytest.mark.parametrize("algorithm", [PPO, DQN])
def test_the_backbone_sees_each_frame_once(algorithm: type[PPO] | type[DQN]) -> None:
    recorder = ObservationRecorder(games())
    model = make(algorithm, recorder, PER_FRAME)
    frames = 0

    def count(module: Any, inputs: tuple[torch.Tensor]) -> None:
        nonlocal frames
        frames += len(inputs[0])

    encoder_of(model).trunk.register_forward_pre_hook(count)
    steps, cut_off = 0, 0

    class Count(BaseCallback):
        def _on_step(self) -> bool:
            nonlocal steps, cut_off
            steps += 1
            cut_off += sum(info.get("TimeLimit.truncated", False) for info in self.locals["infos"])
            return True

    model.learn(N_ENVS * 60, callback=Count())
    assert cut_off > 0
    # The stacks at the start, a frame a step, the last ones before a truncation, and the padding.
    assert frames == N_ENVS * DEPTH + N_ENVS * steps + cut_off + 1
    recorder.close()


@ENCODERS
def test_a_replay_of_features_gives_what_the_whole_encoder_gives(encoder: dict[str, Any]) -> None:
    plain, cached = games(), games()
    kwargs = {"features_extractor_kwargs": encoder}
    settings: dict[str, Any] = {"buffer_size": 2_000, "learning_starts": 10**6, "seed": 0}
    pixels = DQN("CnnPolicy", plain, policy_kwargs=kwargs, device="cpu", **settings)
    features = make(DQN, cached, encoder)
    features.learning_starts = 10**6
    features.policy.load_state_dict(pixels.policy.state_dict())
    for model in (pixels, features):
        model.set_random_seed(1)
        model.learn(N_ENVS * 60)
    returns = NStepReturns(3, 0.9)
    times = torch.arange(60).repeat_interleave(N_ENVS)
    envs = torch.arange(N_ENVS).repeat(60)
    batches = [m.replay_buffer.transitions(times, envs, returns) for m in (pixels, features)]
    for field in ("actions", "rewards", "discounts"):
        assert torch.equal(*(getattr(batch, field) for batch in batches))
    with torch.no_grad():
        for field in ("observations", "next_observations"):
            mine, its = (pixels.q_net(getattr(batch, field)) for batch in batches[::-1])
            torch.testing.assert_close(mine, its, rtol=1e-4, atol=1e-5)
    plain.close()
    cached.close()


@pytest.mark.parametrize("algorithm", [PPO, pytest.param(DQN, marks=pytest.mark.slow)])
def test_a_fine_tuned_encoder_keeps_its_fraction_of_the_rate(
    algorithm: type[PPO] | type[DQN],
) -> None:
    venv = games()
    kwargs = {"features_extractor_kwargs": PER_FRAME, "encoder_lr_factor": 0.1}
    options: dict[str, Any] = {
        PPO: {"n_steps": 30, "batch_size": 60, "n_epochs": 1},
        DQN: {"buffer_size": 2_000, "learning_starts": 40, "batch_size": 8},
    }[algorithm]
    schedule = LinearSchedule(1e-3, 1e-4, end_fraction=1.0)
    model = algorithm(
        "CnnPolicy",
        venv,
        learning_rate=schedule,
        policy_kwargs=kwargs,
        seed=0,
        device="cpu",
        **options,
    )
    model.learn(N_ENVS * 60)
    groups = model.policy.optimizer.param_groups
    assert len(groups) == 2
    assert groups[0]["lr"] == pytest.approx(0.1 * groups[1]["lr"])
    assert groups[1]["lr"] == pytest.approx(1e-4)
    pretrained = {id(p) for part in encoder_of(model).pretrained_parts() for p in part.parameters()}
    assert {id(p) for p in groups[0]["params"]} == pretrained
    network = model.policy.q_net if isinstance(model, DQN) else model.policy
    everything = {id(p) for p in network.parameters()}
    assert {id(p) for group in groups for p in group["params"]} == everything
    venv.close()
