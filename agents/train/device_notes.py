"""The device and speed options, and lines about options without effect."""

from __future__ import annotations

import torch

from agents.config import TrainConfig
from agents.registry import ALGORITHMS, Agent
from rlcnn.accelerate.devices import describe_device


def describe_device_use(config: TrainConfig) -> str:
    """The device and every option that affects speed, of a resolved configuration."""
    on_gpu = torch.device(config.device).type == "cuda"
    parts = [
        describe_device(config.device, config.precision, config.num_threads),
        *([f"CUDA graphs {config.cuda_graphs}"] if on_gpu else []),
        f"overlap {config.overlap}",
        f"compile {config.compile}",
    ]
    return ", ".join(parts)


def notes_on_device(asked: TrainConfig, config: TrainConfig, model: Agent) -> list[str]:
    """One line for each option that has no effect, or less than its name says.

    ``asked`` is the configuration as the user gave it, and ``config`` the same, resolved.
    """
    notes = []
    on_gpu = torch.device(config.device).type == "cuda"
    if asked.compile == "on" and config.compile == "off":
        compiled = " or ".join(n.upper() for n, spec in ALGORITHMS.items() if spec.compiles)
        notes.append(
            f"--compile on has no effect: it compiles {compiled}'s update, and this is"
            f" {config.algo.upper()}"
        )
    if asked.cuda_graphs == "on" and not on_gpu:
        notes.append(f"--cuda-graphs on has no effect: it needs a GPU, and this is {config.device}")
    if config.precision == "tf32" and not on_gpu:
        notes.append("--precision tf32 has no effect: a CPU computes in fp32")
    if config.cuda_graphs == "on":
        notes += config.algorithm.notes_on_graphs(model)
    return notes
