"""DQN's sampling, gradient steps and actions captured as graphs learn the same as uncaptured."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback
from support.pretend_gpu import PretendGPU
from support.toy_envs import Columns, WorldVecEnv

from agents.dqn.agent import DQN
from agents.networks.policies import Precision
from rlcnn.accelerate.cuda_graphs import CudaRecorder

pytestmark = pytest.mark.usefixtures("one_thread")
LENET = {"encoder": "lenet", "encoder_options": {"features_dim": 16}}


def make_dqn(precision: Precision = "fp32", frozen: bool = False, **options: Any) -> DQN:
    settings: dict[str, Any] = {
        # The same number in single precision, in which a graph reads it.
        "learning_rate": 2**-10,
        "buffer_size": 256,
        "learning_starts": 32,
        "batch_size": 16,
        "target_update_interval": 64,
        "exploration_fraction": 1e-9,
        "n_steps": 2,
        "cuda_graphs": True,
        "seed": 0,
        "device": "cuda",
        **options,
    }
    extractor = {**LENET, "frozen": frozen}
    kwargs = {"features_extractor_kwargs": extractor, "precision": precision}
    return DQN("CnnPolicy", WorldVecEnv(Columns(), 8, 2), policy_kwargs=kwargs, **settings)


def parameters(model: DQN) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.q_net.parameters()])


@pytest.mark.parametrize("frozen", [False, True])
def test_captured_it_learns_the_same_to_the_bit(frozen: bool, pretend_gpu: PretendGPU) -> None:
    rate = {"learning_rate": lambda progress: 2**-10 * (0.5 + 0.5 * (progress > 0.5))}
    # The replay's ring goes round.
    options = {"frozen": frozen, "buffer_size": 128, **rate}
    captured = make_dqn(**options).learn(200)
    # Storing, sampling, learning, acting.
    assert pretend_gpu.captures == 4
    assert pretend_gpu.replays > 2 * 40
    plain = make_dqn(cuda_graphs=False, **options).learn(200)
    assert captured._n_updates == plain._n_updates > 40
    assert torch.equal(parameters(captured), parameters(plain))
    assert pretend_gpu.captures == 4


def test_with_overlap_it_is_captured_in_the_foreground(
    pretend_gpu: PretendGPU, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    captures: list[tuple[bool, bool]] = []
    beside: list[bool] = []
    capture = CudaRecorder.capture

    def noted(*arguments: Any) -> Any:
        in_foreground = threading.current_thread() is threading.main_thread()
        captures.append((in_foreground, model._runner.busy))
        return capture(*arguments)

    class Watch(BaseCallback):
        def _on_step(self) -> bool:
            beside.append(model._runner.busy)
            return True

    monkeypatch.setattr(CudaRecorder, "capture", noted)
    model = make_dqn(frozen=True, overlap=True)
    with caplog.at_level(logging.WARNING):
        model.learn(200, callback=Watch())
    assert not caplog.messages
    assert captures == [(True, False)] * 4
    assert beside[-1]


@pytest.mark.parametrize(
    "options",
    [{"cuda_graphs": False}, {"optimizer": {"eps": 1e-8}}],
    ids=["off", "an optimiser that counts on the host"],
)
def test_what_cannot_or_shall_not_be_captured_is_not(
    options: dict[str, Any], pretend_gpu: PretendGPU
) -> None:
    model = make_dqn(cuda_graphs=options.get("cuda_graphs", True))
    if "optimizer" in options:
        model.policy.optimizer = torch.optim.Adam(model.q_net.parameters(), **options["optimizer"])
    assert model.learn(64)._n_updates > 0
    # The replay's storing does not depend on the optimiser.
    assert pretend_gpu.captures == int("optimizer" in options)
