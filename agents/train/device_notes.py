"""One line about device and speed options, and lines about options without effect."""

from __future__ import annotations

import torch

from agents.config import TrainConfig
from agents.dqn.agent import DQN
from agents.train.checkpoint import Agent
from rlcnn.accelerate.devices import describe_device


def describe_device_use(config: TrainConfig) -> str:
    """The device and every option that affects speed, of a resolved configuration."""
    on_gpu = torch.device(config.device).type == "cuda"
    parts = [
        describe_device(config.device),
        config.precision,
        *([f"CUDA graphs {config.cuda_graphs}"] if on_gpu else []),
        f"overlap {config.overlap}",
        f"compile {config.compile}",
        f"{config.num_envs} environment{'s' * (config.num_envs != 1)}",
        f"{config.num_threads} CPU thread{'s' * (config.num_threads != 1)}",
    ]
    return f"device: {', '.join(parts)}"


def notes_on_device(asked: TrainConfig, config: TrainConfig, model: Agent) -> list[str]:
    """One line for each option that has no effect, or less than its name says.

    Args:
        asked: the configuration as the user gave it.
        config: the same, resolved.
        model: the agent built from it.
    """
    notes = []
    on_gpu = torch.device(config.device).type == "cuda"
    if asked.compile == "on" and config.compile == "off":
        notes.append("--compile on has no effect: it compiles PPO's update, and this is DQN")
    if asked.cuda_graphs == "on" and not on_gpu:
        notes.append(f"--cuda-graphs on has no effect: it needs a GPU, and this is {config.device}")
    if config.precision == "tf32" and not on_gpu:
        notes.append("--precision tf32 has no effect: a CPU computes in fp32")
    if config.cuda_graphs == "on":
        notes += _notes_on_graphs(config, model)
    return notes


def _notes_on_graphs(config: TrainConfig, model: Agent) -> list[str]:
    if isinstance(model, DQN):
        if model.setup_replay().device.type == "cpu":
            return [
                "the replay is on the host: storing and sampling are not captured as CUDA graphs"
                " (--replay-device cuda, a smaller --dqn.buffer-size)"
            ]
    elif config.ppo.target_kl is not None:
        return [
            "--ppo.target-kl waits for the GPU after each minibatch: the update is not captured as"
            " a CUDA graph"
        ]
    return []
