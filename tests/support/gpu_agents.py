"""Small agents on a GPU, in environments of noisy images, and the comparisons of tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch

from agents.dqn.agent import DQN
from agents.ppo.agent import PPO
from rlcnn.accelerate.devices import Precision
from support.toy_envs import Clock, WorldVecEnv

# Some releases of torch ask for it where all is to be deterministic, at their first call of
# cuBLAS in a process, which may be another test's.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

GPU = "cuda"
N_ENVS, N_STEPS = 4, 8
ROLLOUT = N_ENVS * N_STEPS
WHOLE_STACKS = {"encoder": "nature", "encoder_options": {"features_dim": 32}}
PER_FRAME = {
    "encoder": "squeezenet1_1:features.3",
    "encoder_options": {"pooling": "mean", "features_dim": 16},
}

Mode = Literal["train", "finetune", "frozen"]


class NoisyVecEnv(WorldVecEnv):
    """Worlds whose frames hold noise.

    In a dark frame most sums before a ReLU are exactly 0, where another kernel's rounding decides
    whether a gradient flows.
    """

    def _see(self, env: int) -> None:
        super()._see(env)
        newest = self.observations[env, -1]
        newest //= 2
        newest += self.rng.integers(1, 128, newest.shape, dtype=np.uint8)


def make_env(n_envs: int = N_ENVS, seed: int = 0) -> NoisyVecEnv:
    # An episode is cut off at every third step, and its stack of two frames starts anew.
    return NoisyVecEnv(Clock(), n_envs, depth=2, seed=seed)


def _policy(mode: Mode, precision: Precision, encoder: dict[str, Any]) -> dict[str, Any]:
    return {
        "features_extractor_kwargs": {**encoder, "frozen": mode == "frozen"},
        "encoder_lr_factor": 0.125 if mode == "finetune" else 1.0,
        "precision": precision,
    }


def make_ppo(
    mode: Mode = "train",
    precision: Precision = "fp32",
    encoder: dict[str, Any] = WHOLE_STACKS,
    **options: Any,
) -> PPO:
    settings: dict[str, Any] = {
        "env": options.pop("env", None) or make_env(),
        "n_steps": N_STEPS,
        "batch_size": 16,
        "n_epochs": 2,
        # The same number in float32, in which a graph reads it.
        "learning_rate": 2**-10,
        "policy_kwargs": _policy(mode, precision, encoder),
        "seed": 0,
        "device": GPU,
        **options,
    }
    return PPO("CnnPolicy", **settings)


def make_dqn(
    mode: Mode = "train",
    precision: Precision = "fp32",
    encoder: dict[str, Any] = WHOLE_STACKS,
    **options: Any,
) -> DQN:
    settings: dict[str, Any] = {
        "env": options.pop("env", None) or make_env(),
        "learning_rate": 2**-10,
        "buffer_size": 256,
        "learning_starts": 32,
        "batch_size": 16,
        "target_update_interval": 32,
        "exploration_fraction": 1e-9,
        "n_steps": 2,
        "policy_kwargs": _policy(mode, precision, encoder),
        "seed": 0,
        "device": GPU,
        **options,
    }
    return DQN("CnnPolicy", **settings)


def network(model: PPO | DQN) -> torch.nn.Module:
    """What learns."""
    return model.q_net if isinstance(model, DQN) else model.policy


def parameters(model: PPO | DQN) -> torch.Tensor:
    """All parameters that learn, float32 (count,), on the host."""
    return torch.cat([p.detach().flatten().cpu() for p in network(model).parameters()])


def is_captured(model: PPO | DQN) -> bool:
    """Whether everything that can be captured is; True without graphs."""
    if isinstance(model, PPO):
        assert model._learner is not None
        return model._is_captured(model._learner)
    replay, learner = model.replay_buffer, model._learner
    assert replay is not None
    graphs = [replay._write, learner._step, model._actor._graph]
    if learner.captures_sampling:
        graphs += list(learner._sampling.values())
    return all(graph.captured for graph in graphs)


def learn(model: PPO | DQN, steps: int, **options: Any) -> torch.Tensor:
    """Trains; returns the figures of all updates: the losses, and for PPO its other metrics."""
    reports: list[torch.Tensor] = []
    if isinstance(model, PPO):
        record = model._record_update

        def recorded(report: Any) -> None:
            reports.append(report.figures)
            record(report)

        model._record_update = recorded  # type: ignore[method-assign]
    else:
        note = model._add_losses

        def noted(losses: list[torch.Tensor]) -> None:
            reports.extend(losses)
            note(losses)

        model._add_losses = noted  # type: ignore[method-assign]
    model.learn(steps, **options)
    for name in ("_record_update", "_add_losses"):
        vars(model).pop(name, None)
    return torch.stack(reports).cpu()


def assert_same(one: PPO | DQN, other: PPO | DQN, *reports: torch.Tensor) -> None:
    """Two trainings reported the same and learned the same, to the bit."""
    first, second = reports
    exact: dict[str, Any] = {"rtol": 0, "atol": 0}
    torch.testing.assert_close(first, second, **exact)
    torch.testing.assert_close(parameters(one), parameters(other), **exact)


@contextmanager
def refusing_waits() -> Iterator[None]:
    """Inside, torch raises where the host waits for the device. Events may be waited for."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@contextmanager
def allowing_waits() -> Iterator[None]:
    """The exception inside :func:`refusing_waits`."""
    torch.cuda.set_sync_debug_mode("default")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("error")
