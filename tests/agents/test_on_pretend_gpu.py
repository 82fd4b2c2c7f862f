"""Both algorithms on a pretend GPU: whatever would be wrong on a real one is found here."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.pretend_gpu import CUDA, PretendGPU
from worlds import Clock, WorldVecEnv

from agents.dqn import DQN
from agents.ppo import PPO

pytestmark = pytest.mark.usefixtures("one_thread")


def policy_options(frozen: bool) -> dict[str, Any]:
    lenet = {"encoder": "lenet", "encoder_options": {"features_dim": 16}, "frozen": frozen}
    return {"features_extractor_kwargs": lenet}


def make_ppo(frozen: bool = False, **options: Any) -> PPO:
    # Cut off every third step: values beyond the end of a rollout's episodes are asked for, too.
    settings: dict[str, Any] = {"n_steps": 8, "batch_size": 16, "n_epochs": 2, "seed": 0}
    settings |= {"device": "cuda", "policy_kwargs": policy_options(frozen), **options}
    return PPO("CnnPolicy", WorldVecEnv(Clock(), 4, 2), **settings)


def make_dqn(frozen: bool = False, **options: Any) -> DQN:
    settings: dict[str, Any] = {"buffer_size": 128, "learning_starts": 16, "batch_size": 8}
    settings |= {"target_update_interval": 32, "exploration_fraction": 1e-9, "seed": 0}
    settings |= {"device": "cuda", "policy_kwargs": policy_options(frozen), **options}
    return DQN("CnnPolicy", WorldVecEnv(Clock(), 4, 2), **settings)


@pytest.mark.parametrize("frozen", [False, True], ids=["pixels", "features"])
@pytest.mark.parametrize("overlap", [False, True], ids=["in turn", "overlap"])
@pytest.mark.parametrize("cuda_graphs", [False, True], ids=["eager", "graphs"])
def test_ppo_trains(
    cuda_graphs: bool, overlap: bool, frozen: bool, pretend_gpu: PretendGPU
) -> None:
    model = make_ppo(frozen, cuda_graphs=cuda_graphs, overlap=overlap).learn(6 * 32)
    assert model._n_updates == 6 * 2
    assert {parameter.device for parameter in model.policy.parameters()} == {CUDA}
    # One for each rollout in memory, and one for acting.
    assert pretend_gpu.captures == cuda_graphs * (2 + overlap)
    assert bool(pretend_gpu.replays) == cuda_graphs


@pytest.mark.parametrize("frozen", [False, True], ids=["pixels", "features"])
@pytest.mark.parametrize("overlap", [False, True], ids=["in turn", "overlap"])
@pytest.mark.parametrize("cuda_graphs", [False, True], ids=["eager", "graphs"])
@pytest.mark.parametrize("replay_device", ["cpu", "cuda"])
def test_dqn_trains(
    replay_device: str, cuda_graphs: bool, overlap: bool, frozen: bool, pretend_gpu: PretendGPU
) -> None:
    options = {"cuda_graphs": cuda_graphs, "overlap": overlap, "replay_device": replay_device}
    model = make_dqn(frozen, **options).learn(80)
    assert model._n_updates == 16
    assert model.replay_buffer is not None
    assert model.replay_buffer.device.type == replay_device
    assert {parameter.device for parameter in model.policy.parameters()} == {CUDA}
    assert bool(pretend_gpu.replays) == cuda_graphs
