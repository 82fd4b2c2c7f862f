"""What is said of the device, and of options that have no effect on it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from support.toy_envs import Columns, WorldVecEnv

from agents.config import PPOConfig, TrainConfig
from agents.dqn.agent import DQN
from agents.ppo.agent import PPO
from agents.train.device_notes import describe_device_use, notes_on_device

CPU = TrainConfig(device="cpu", precision="fp32", num_envs=1, num_threads=2)
GPU = replace(CPU, device="cuda", cuda_graphs="on", overlap="on", compile="off")
LENET = {"features_extractor_kwargs": {"encoder": "lenet"}}


def agent(algo: str, target_kl: float | None) -> PPO | DQN:
    make: Any = PPO if algo == "ppo" else DQN
    sizes: dict[str, Any] = {"buffer_size": 64}
    if algo == "ppo":
        sizes = {"n_steps": 8, "batch_size": 8, "target_kl": target_kl}
    return make("CnnPolicy", WorldVecEnv(Columns(), 1, 2), policy_kwargs=LENET, **sizes)


def test_the_device_line_names_what_auto_stood_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100")
    assert describe_device_use(CPU.resolve()) == (
        "cpu, fp32, 2 CPU threads, overlap off, compile off"
    )
    assert describe_device_use(GPU) == (
        "cuda (NVIDIA H100), fp32, 2 CPU threads, CUDA graphs on, overlap on, compile off"
    )


@pytest.mark.parametrize(
    ("algo", "asked", "expected"),
    [
        ("ppo", CPU, []),
        ("ppo", replace(CPU, compile="on"), []),
        ("dqn", replace(CPU, compile="on"), ["--compile on has no effect"]),
        ("ppo", replace(CPU, cuda_graphs="on"), ["--cuda-graphs on has no effect: it needs a GPU"]),
        ("dqn", replace(CPU, precision="tf32"), ["--precision tf32 has no effect"]),
        # The agent itself is on the host: its replay is, too.
        ("dqn", GPU, ["the replay is on the host: storing and sampling are not captured"]),
        ("ppo", GPU, []),
        ("ppo", replace(GPU, ppo=PPOConfig(target_kl=0.1)), ["--ppo.target-kl waits for the GPU"]),
        ("ppo", replace(GPU, cuda_graphs="off", ppo=PPOConfig(target_kl=0.1)), []),
    ],
)
def test_an_option_without_effect_gets_one_line(
    algo: Any, asked: TrainConfig, expected: list[str]
) -> None:
    asked = replace(asked, algo=algo)
    config = asked if asked.device == "cuda" else asked.resolve()
    notes = notes_on_device(asked, config, agent(algo, asked.ppo.target_kl))
    assert len(notes) == len(expected)
    for note, begins in zip(notes, expected, strict=True):
        assert note.startswith(begins)
        assert "\n" not in note
