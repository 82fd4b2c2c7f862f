"""Whole runs on a real GPU: learning, repeating, resuming elsewhere, loading, evaluating."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import gpu_agents
from support.agent_runs import quiet
from support.run_files import assert_equal, learned, rows_of
from support.tiny_agents import GPU_RUN, as_dqn

from agents import load_agent
from agents.config import PPOConfig, TrainConfig
from agents.dqn.agent import DQN
from agents.evaluate.evaluation import evaluate_agent
from agents.presets import preset_config
from agents.train import training
from rlcnn.runs.directory import RunDirectory

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("torch_settings")]

PPO = replace(
    GPU_RUN,
    encoder="nature",
    encoder_options={"features_dim": 32},
    precision="bf16",
    total_steps=160,
    eval_every=80,
    checkpoint_every=64,
    # Learning rates with the same value in float32, in which a graph reads them.
    ppo=PPOConfig(
        learning_rate=2**-10,
        learning_rate_schedule="constant",
        n_steps=8,
        batch_size=8,
        n_epochs=2,
    ),
)
"""Ten rollouts of 16 steps."""
RUN_DQN = as_dqn(PPO, learning_rate=2**-10, buffer_size=128, learning_starts=32)
RUNS = pytest.mark.parametrize("config", [PPO, RUN_DQN], ids=["ppo", "dqn"])
DETERMINISTIC = pytest.mark.usefixtures("deterministic")
LONGER: dict[str, Any] = {"total_steps": 320}
BEST_RETURN = 16.0


def train(config: TrainConfig, run_dir: Path) -> Path:
    return training.train(config, run_dir, console=quiet())


def resume_copy(run_dir: Path, name: str, changes: dict[str, Any]) -> Path:
    copy = Path(shutil.copytree(run_dir, run_dir.with_name(name)))
    return training.resume(copy, {**LONGER, **changes}, console=quiet())


@RUNS
@pytest.mark.parametrize("overlap", ["off", "on"], ids=["in turn", "overlap"])
@DETERMINISTIC
def test_runs_of_one_seed_are_equal_to_the_bit(
    overlap: Any, config: TrainConfig, tmp_path: Path
) -> None:
    config = replace(config, overlap=overlap)
    runs = [train(config, tmp_path / name) for name in ("one", "other")]
    assert_equal(*map(learned, runs))
    assert_equal(*map(rows_of, runs))
    for run in runs:
        np.random.seed(len(run.name)), torch.manual_seed(len(run.name))
        training.resume(run, LONGER, console=quiet())
    assert_equal(*map(learned, runs))
    assert_equal(*map(rows_of, runs))


@RUNS
@pytest.mark.parametrize("before", ["on", "off"], ids=["from graphs", "from eager"])
@DETERMINISTIC
def test_a_run_is_resumed_with_or_without_graphs_alike(
    before: Any, config: TrainConfig, tmp_path: Path
) -> None:
    run = train(replace(config, cuda_graphs=before), tmp_path / "run")
    runs = [resume_copy(run, f"then {after}", {"cuda_graphs": after}) for after in ("on", "off")]
    assert_equal(*map(learned, runs))
    assert_equal(*map(rows_of, runs))


@RUNS
@pytest.mark.parametrize("mode", ["train", "frozen"])
def test_a_run_goes_on_on_the_cpu_and_back(mode: Any, config: TrainConfig, tmp_path: Path) -> None:
    run = train(replace(config, mode=mode, precision="fp32"), tmp_path / "run")
    for changes in ({"device": "cpu", "cuda_graphs": "auto"}, {"device": gpu_agents.GPU}):
        total = RunDirectory.open(run).summary()["steps"] + 64  # type: ignore[index]
        training.resume(run, {**changes, "total_steps": total}, console=quiet())
        for row in rows_of(run):
            assert np.isfinite(row.get("train/loss", 0.0))


@RUNS
def test_an_agent_is_loaded_anywhere_and_evaluates_alike(
    config: TrainConfig, tmp_path: Path
) -> None:
    run = train(replace(config, precision="fp32"), tmp_path / "run")
    images = np.random.default_rng(0).integers(256, size=(8, 2, 36, 36), dtype=np.uint8)
    found = []
    for device in ("cpu", gpu_agents.GPU):
        model = load_agent(run, device=device)
        assert {p.device.type for p in model.policy.parameters()} == {device}
        shown = torch.as_tensor(images, device=device)
        with torch.no_grad():
            if isinstance(model, DQN):
                values = model.q_net(shown)
            else:
                values = model.policy.logits_and_values(shown)[0]
        actions, _ = model.predict(images, deterministic=True)
        assert np.array_equal(actions, values.argmax(1).cpu().numpy())
        assert model.predict(images[0])[0].shape == ()
        assert len(evaluate_agent(model, config, episodes=2).returns) == 2
        found.append(values.cpu())
    # In float32; see test_agents_on_gpu.py.
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-5)


def tiny_run(algo: Any, **changes: Any) -> TrainConfig:
    """A run in a tiny game with the defaults of a GPU: bfloat16, graphs, storage on the GPU."""
    return replace(
        preset_config("fast", algo),
        env="support.games:Signals-v0",
        obs_size=36,
        frame_stack=2,
        num_threads=2,
        track="disabled",
        eval_every=0,
        eval_episodes=16,
        video_every=0,
        checkpoint_every=0,
        **changes,
    )


FAST_PPO = replace(preset_config("fast", "ppo").ppo, gamma=0.5)
FAST_DQN = replace(
    preset_config("fast", "dqn").dqn,
    buffer_size=10_000,
    learning_starts=500,
    learning_rate=1e-3,
    gamma=0.5,
    target_update_interval=200,
    exploration_fraction=0.5,
)


@pytest.mark.parametrize(
    "config",
    [
        tiny_run("ppo", total_steps=20_480, ppo=FAST_PPO),
        tiny_run("ppo", total_steps=20_480, ppo=FAST_PPO, overlap="on"),
        tiny_run("ppo", total_steps=20_480, ppo=FAST_PPO, env_groups=2),
        tiny_run("dqn", total_steps=6_000, dqn=FAST_DQN),
        tiny_run("dqn", total_steps=6_000, dqn=FAST_DQN, overlap="on"),
        tiny_run("dqn", total_steps=6_000, dqn=FAST_DQN, replay_device="cpu"),
    ],
    ids=["ppo", "ppo-overlap", "ppo-groups", "dqn", "dqn-overlap", "dqn-replay on host"],
)
def test_a_tiny_world_is_solved(config: TrainConfig, tmp_path: Path) -> None:
    run = RunDirectory.open(train(config, tmp_path / "run"))
    resolved = run.config["config"]
    assert torch.device(resolved["device"]).type == gpu_agents.GPU
    assert resolved["precision"] == "bf16"
    assert resolved["cuda_graphs"] == "on"
    # It samples from its policy, or acts at random once in a hundred steps.
    assert run.summary()["eval"]["mean_return"] >= 0.9 * BEST_RETURN  # type: ignore[index]
