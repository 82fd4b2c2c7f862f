"""Whole runs on a pretend GPU, with evaluations, checkpoints and the benchmark's stages."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.agent_runs import quiet
from support.pretend_gpu import CUDA, PretendGPU
from support.tiny_agents import GPU_RUN, as_dqn

from agents import load_agent
from agents.benchmark.stages import Variant, inference_stage, update_stage
from agents.config import PQNConfig, TrainConfig
from agents.evaluate.evaluation import evaluate_agent
from agents.train import training

pytestmark = pytest.mark.usefixtures("one_thread")

PPO = replace(GPU_RUN, overlap="on", total_steps=96, eval_every=48, checkpoint_every=32)
DQN = as_dqn(PPO, buffer_size=64, learning_starts=16)
PQN = replace(PPO, algo="pqn", pqn=PQNConfig(n_steps=8, batch_size=8, n_epochs=1))


@pytest.mark.parametrize("config", [PPO, DQN, PQN], ids=["ppo", "dqn", "pqn"])
def test_a_run_is_evaluated_saved_resumed_and_loaded(
    config: TrainConfig, tmp_path: Path, pretend_gpu: PretendGPU
) -> None:
    run_dir = tmp_path / "run"
    training.train(config, run_dir, console=quiet())
    training.resume(run_dir, {"total_steps": 160}, console=quiet())
    assert pretend_gpu.replays
    for device in ("cuda", "cpu"):
        model = load_agent(run_dir, device=device)
        assert {p.device.type for p in model.policy.parameters()} == {device}
        assert len(evaluate_agent(model, config, episodes=2).returns) == 2


@pytest.mark.parametrize("config", [PPO, DQN, PQN], ids=["ppo", "dqn", "pqn"])
def test_an_encoder_is_unfrozen_in_the_midst_of_a_run(
    config: TrainConfig, tmp_path: Path, pretend_gpu: PretendGPU
) -> None:
    config = replace(config, mode="finetune", unfreeze_at_step=48, eval_episodes=0)
    training.train(config, tmp_path / "run", console=quiet())
    assert pretend_gpu.captures > 2


@pytest.mark.parametrize("precision", [pytest.param("fp32", marks=pytest.mark.slow), "bf16"])
def test_a_frozen_encoder_with_its_replay_on_the_host(
    precision: str, tmp_path: Path, pretend_gpu: PretendGPU
) -> None:
    config = replace(DQN, mode="frozen", replay_device="cpu", precision=precision, eval_episodes=0)
    training.train(config, tmp_path / "run", console=quiet())
    # What is on the host is not captured: a gradient step and acting are.
    assert pretend_gpu.captures >= 2


@pytest.mark.parametrize("config", [PPO, DQN, PQN], ids=["ppo", "dqn", "pqn"])
@pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])
def test_the_benchmarks_stages_run(
    graph: bool, config: TrainConfig, pretend_gpu: PretendGPU
) -> None:
    variant = Variant("bf16", 1, graph=graph)
    for stage in (inference_stage, update_stage):
        assert stage(config, (2, 36, 36), 4, variant).measure(0.0) > 0
    assert pretend_gpu.captures == 2 * graph
    assert torch.zeros(1, device="cuda").device == CUDA
