"""Both algorithms on a pretend GPU, which finds what would be wrong on a real one."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from stable_baselines3.common.vec_env import VecEnv
from support.pretend_gpu import CUDA, PretendGPU
from support.toy_envs import Clock, WorldVecEnv

from agents.dqn.agent import DQN
from agents.ppo.agent import PPO
from agents.ppo.learner import PPOLearner
from agents.pqn.agent import PQN
from envs.errors import UserError
from envs.groups import GroupedVecEnv
from rlcnn.accelerate.cuda_graphs import Graphed

pytestmark = pytest.mark.usefixtures("one_thread")


def policy_options(frozen: bool) -> dict[str, Any]:
    lenet = {"encoder": "lenet", "encoder_options": {"features_dim": 16}, "frozen": frozen}
    return {"features_extractor_kwargs": lenet}


def make_ppo(frozen: bool = False, env: VecEnv | None = None, **options: Any) -> PPO:
    # Cut off every third step: values beyond the end of a rollout's episodes are asked for, too.
    settings: dict[str, Any] = {"n_steps": 8, "batch_size": 16, "n_epochs": 2, "seed": 0}
    settings |= {"device": "cuda", "policy_kwargs": policy_options(frozen), **options}
    return PPO("CnnPolicy", env or WorldVecEnv(Clock(), 4, 2), **settings)


def make_pqn(frozen: bool = False, env: VecEnv | None = None, **options: Any) -> PQN:
    settings: dict[str, Any] = {"n_steps": 8, "batch_size": 16, "n_epochs": 2, "seed": 0}
    settings |= {"device": "cuda", "policy_kwargs": policy_options(frozen), **options}
    return PQN("CnnPolicy", env or WorldVecEnv(Clock(), 4, 2), **settings)


def make_dqn(frozen: bool = False, **options: Any) -> DQN:
    settings: dict[str, Any] = {"buffer_size": 128, "learning_starts": 16, "batch_size": 8}
    settings |= {"target_update_interval": 32, "exploration_fraction": 1e-9, "seed": 0}
    settings |= {"device": "cuda", "policy_kwargs": policy_options(frozen), **options}
    return DQN("CnnPolicy", WorldVecEnv(Clock(), 4, 2), **settings)


def ways(options: Sequence[Sequence[str]], by_default: set[str]) -> list[Any]:
    """All combinations of options; those left to slow tests add no new pair of options."""
    combinations = [" ".join(way) for way in itertools.product(*options)]
    assert by_default <= set(combinations)
    return [
        pytest.param(way, marks=() if way in by_default else pytest.mark.slow)
        for way in combinations
    ]


PPO_WAYS = ways(
    [("eager", "graphs"), ("in-turn", "overlap"), ("pixels", "features")],
    {
        "eager in-turn pixels",
        "eager overlap features",
        "graphs in-turn features",
        "graphs overlap pixels",
    },
)
DQN_WAYS = ways(
    [("cpu", "cuda"), ("eager", "graphs"), ("in-turn", "overlap"), ("pixels", "features")],
    {
        "cpu eager in-turn pixels",
        "cpu eager overlap features",
        "cpu graphs overlap pixels",
        "cuda eager overlap pixels",
        "cuda graphs in-turn features",
        "cuda graphs overlap features",
    },
)
GROUP_WAYS = ways(
    [("in-turn", "overlap"), ("pixels", "features")], {"in-turn features", "overlap pixels"}
)


@pytest.mark.parametrize("way", PPO_WAYS)
def test_ppo_trains(way: str, pretend_gpu: PretendGPU) -> None:
    cuda_graphs, overlap, frozen = (word in way for word in ("graphs", "overlap", "features"))
    model = make_ppo(frozen, cuda_graphs=cuda_graphs, overlap=overlap).learn(6 * 32)
    assert model._n_updates == 6 * 2
    assert {parameter.device for parameter in model.policy.parameters()} == {CUDA}
    # One for each rollout in memory, and one for acting.
    assert pretend_gpu.captures == cuda_graphs * (2 + overlap)
    assert bool(pretend_gpu.replays) == cuda_graphs


@pytest.mark.parametrize("way", PPO_WAYS)
def test_pqn_trains(way: str, pretend_gpu: PretendGPU) -> None:
    cuda_graphs, overlap, frozen = (word in way for word in ("graphs", "overlap", "features"))
    model = make_pqn(frozen, cuda_graphs=cuda_graphs, overlap=overlap).learn(6 * 32)
    assert model._n_updates == 6 * 2
    assert {parameter.device for parameter in model.policy.parameters()} == {CUDA}
    assert pretend_gpu.captures == cuda_graphs * (2 + overlap)
    assert bool(pretend_gpu.replays) == cuda_graphs
    # RAdam has no fused form: what counts its steps is on the device where they are captured.
    (state, *_) = model.policy.optimizer.state.values()
    assert state["step"].device.type == ("cuda" if cuda_graphs else "cpu")


@pytest.mark.parametrize("way", DQN_WAYS)
def test_dqn_trains(way: str, pretend_gpu: PretendGPU) -> None:
    cuda_graphs, overlap, frozen = (word in way for word in ("graphs", "overlap", "features"))
    replay_device = way.split()[0]
    options = {"cuda_graphs": cuda_graphs, "overlap": overlap, "replay_device": replay_device}
    model = make_dqn(frozen, **options).learn(80)
    assert model._n_updates == 16
    assert model.replay_buffer is not None
    assert model.replay_buffer.device.type == replay_device
    assert {parameter.device for parameter in model.policy.parameters()} == {CUDA}
    assert bool(pretend_gpu.replays) == cuda_graphs


@pytest.mark.parametrize("way", GROUP_WAYS)
def test_ppo_trains_with_two_groups_of_environments(way: str, pretend_gpu: PretendGPU) -> None:
    overlap, frozen = (word in way for word in ("overlap", "features"))
    groups = GroupedVecEnv([WorldVecEnv(Clock(), 2, 2), WorldVecEnv(Clock(), 2, 2)])
    model = make_ppo(frozen, env=groups, cuda_graphs=True, overlap=overlap).learn(6 * 32)
    assert model._n_updates == 6 * 2
    # One for each rollout in memory, and one for the policy of each group.
    assert pretend_gpu.captures == 3 + overlap
    assert pretend_gpu.replays


@pytest.mark.parametrize(("free", "device"), [(2**40, "cuda"), (2**20, "cpu")])
def test_a_replay_that_does_not_fit_on_the_gpu_is_on_the_host(
    free: int, device: str, pretend_gpu: PretendGPU
) -> None:
    pretend_gpu.free_memory = free
    model = make_dqn(replay_device="auto", cuda_graphs=True).learn(40)
    assert model.replay_buffer is not None
    assert model.replay_buffer.device.type == device


@pytest.mark.parametrize(
    ("make", "steps", "overlap"),
    [
        pytest.param(make_ppo, 6 * 32, False, id="ppo in turn", marks=pytest.mark.slow),
        pytest.param(make_ppo, 6 * 32, True, id="ppo overlap"),
        pytest.param(make_dqn, 80, False, id="dqn in turn"),
        pytest.param(make_dqn, 80, True, id="dqn overlap", marks=pytest.mark.slow),
    ],
)
def test_a_training_goes_on_where_no_function_can_be_captured(
    make: Any,
    steps: int,
    overlap: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    pretend_gpu: PretendGPU,
) -> None:
    def refuse(self: Graphed[Any]) -> Any:
        if torch.cuda.is_current_stream_capturing():
            raise ValueError("not in a graph")
        return run(self)

    run = Graphed._run
    monkeypatch.setattr(Graphed, "_run", refuse)
    stream = torch.cuda.current_stream()
    model = make(cuda_graphs=True, overlap=overlap).learn(steps)
    assert model._n_updates
    assert torch.cuda.current_stream() is stream
    assert pretend_gpu.captures
    assert not pretend_gpu.replays
    assert "the update runs without a CUDA graph: not in a graph" in caplog.messages


def forget_stream(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("support.pretend_gpu.timeline.Stream.wait_stream", lambda self, other: None)


def read_at_once(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        "rlcnn.accelerate.transfers.Readback.wait", lambda self: self._host.numpy().copy()
    )


def do_not_wait_for_features(patch: pytest.MonkeyPatch) -> None:
    def upload(values: Any, device: torch.device) -> torch.Tensor:
        return torch.as_tensor(values).to(device, non_blocking=True)

    patch.setattr("agents.storage.frame_ring.upload", upload)


def multiply_the_loss(patch: pytest.MonkeyPatch, make_factor: Any) -> None:
    real = PPOLearner.loss

    def loss(self: PPOLearner, batch: Any) -> Any:
        return tuple(make_factor() * value for value in real(self, batch))

    patch.setattr(PPOLearner, "loss", loss)


def copy_a_constant(patch: pytest.MonkeyPatch) -> None:
    multiply_the_loss(patch, lambda: torch.tensor(1.0, device="cuda"))


def ask_the_device(patch: pytest.MonkeyPatch) -> None:
    multiply_the_loss(patch, lambda: torch.ones((), device="cuda").item())


def mix_in_the_host(patch: pytest.MonkeyPatch) -> None:
    multiply_the_loss(patch, lambda: torch.ones(1))


@pytest.mark.parametrize(
    ("plant", "algorithm", "what", "raises"),
    [
        (forget_stream, "ppo", "race: ", False),
        (read_at_once, "ppo", "too early: ", False),
        (do_not_wait_for_features, "dqn", "too early: ", False),
        (copy_a_constant, "ppo", "in a capture: copy to the device from pageable", True),
        (ask_the_device, "ppo", "in a capture: aten._local_scalar_dense", True),
        (mix_in_the_host, "ppo", "two devices: aten.mul", True),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_fault_planted_in_a_training_is_found(
    plant: Any,
    algorithm: str,
    what: str,
    raises: bool,
    monkeypatch: pytest.MonkeyPatch,
    pretend_gpu: PretendGPU,
) -> None:
    plant(monkeypatch)
    if algorithm == "ppo":
        model: PPO | DQN = make_ppo(cuda_graphs=True, overlap=True)
    else:
        model = make_dqn(frozen=True, replay_device="cpu")
    with pytest.raises((RuntimeError, UserError)) if raises else nullcontext():
        model.learn(6 * 32 if algorithm == "ppo" else 40)
    assert any(violation.startswith(what) for violation in pretend_gpu.take_violations())
