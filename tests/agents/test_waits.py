"""What a graph holds, run on a GPU in name only: Python takes the GPU's branches everywhere.

Torch's fake tensors have a device, a type and a shape and no contents, so that whatever asks for
what is in them, which on a GPU would be to wait for it, raises an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from agents.frames import FrameRing
from agents.policies import PixelActorCriticPolicy, PixelDQNPolicy
from agents.ppo_update import Learner, Objective
from agents.q_learning import bootstrap, q_loss
from agents.replay import ReplayBatch
from agents.rollout import FrameRollout
from agents.sampling import NStepReturns, UniformSampler
from agents.stacking import push_frames
from envs.stacking import FrameStacking

GPU = torch.device("cuda", 0)
SPACE, ACTIONS = spaces.Box(0, 255, (4, 84, 84), np.uint8), spaces.Discrete(6)
STACKING = FrameStacking(4, 1)


class StayOnDevice(TorchDispatchMode):
    """Refuses what brings a tensor of the device to the host."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        given, returned = (
            {leaf.device.type for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)}
            for tree in ((args, kwargs), result)
        )
        assert not ("cuda" in given and "cpu" in returned), f"{func} brings a tensor to the host"
        return result


@pytest.fixture
def on_gpu() -> Iterator[None]:
    with FakeTensorMode(allow_non_fake_inputs=True), StayOnDevice():
        yield


def moved(module: nn.Module) -> Any:
    """A module whose tensors are fake ones of the GPU."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                part._parameters[name] = nn.Parameter(torch.empty_like(parameter, device=GPU))
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = torch.empty_like(buffer, device=GPU)
    return module


def stacks(batch: int) -> torch.Tensor:
    return torch.empty(batch, 4, 84, 84, dtype=torch.uint8, device=GPU)


# Before the fixture: the modules themselves are made of true tensors.
@pytest.fixture(scope="module")
def policy() -> PixelActorCriticPolicy:
    return PixelActorCriticPolicy(SPACE, ACTIONS, lambda _: 1e-3, precision="fp32")


@pytest.fixture(scope="module")
def q_policy() -> PixelDQNPolicy:
    return PixelDQNPolicy(SPACE, ACTIONS, lambda _: 1e-4, precision="fp32")


def test_what_looks_or_leaves_is_noticed(on_gpu: None) -> None:
    for look in (torch.Tensor.item, torch.Tensor.nonzero, torch.Tensor.cpu, bool):
        with pytest.raises(Exception, match=r"_local_scalar_dense|nonzero|to the host"):
            look(torch.zeros((), device=GPU))


def test_acting_does_not_wait(policy: PixelActorCriticPolicy, on_gpu: None) -> None:
    policy = moved(policy)
    newest = torch.empty(8, 1, 84, 84, dtype=torch.uint8, device=GPU)
    seen = push_frames(stacks(8), newest, torch.empty(8, dtype=torch.bool, device=GPU), STACKING)
    with torch.no_grad():
        decided = policy(seen)
    assert [tensor.device for tensor in decided] == [GPU] * 3


def test_the_loss_of_a_minibatch_does_not_wait(
    policy: PixelActorCriticPolicy, on_gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents.rollout._on_host", lambda t: torch.empty(t.shape, dtype=t.dtype))
    rollout = FrameRollout(16, SPACE, ACTIONS, GPU, n_envs=16, stacking=STACKING)
    learner = Learner(
        moved(policy),
        Objective(
            normalize_advantage=True,
            clip_values=True,
            vf_coef=0.5,
            max_grad_norm=0.5,
            target_kl=None,
        ),
    )
    learner.set_coefficients(0.1, 0.2, 0.01)
    loss, metrics = learner.loss(rollout.batch(torch.arange(64, device=GPU)))
    assert loss.device == metrics.device == GPU


def test_sampling_and_the_loss_of_dqn_do_not_wait(q_policy: PixelDQNPolicy, on_gpu: None) -> None:
    # Its generator would need a GPU; nothing else of it does.
    sampler = UniformSampler.__new__(UniformSampler)
    sampler.generator = None  # type: ignore[assignment]
    times, envs = sampler.draw(32, torch.empty(9, dtype=torch.int64, device=GPU))
    stored = q_policy.q_net.what_to_store(STACKING)
    frames = torch.empty(50, 8, 1, 84, 84, dtype=torch.uint8, device=GPU)
    ring = FrameRing(frames, torch.empty(50, 8, dtype=torch.uint8, device=GPU), stored)
    flags = torch.empty(32, 3, dtype=torch.bool, device=GPU)
    rewards = torch.empty(32, 3, device=GPU)
    returns, discounts, last = NStepReturns(3, 0.99, GPU)(rewards, flags, flags)
    seen, after = ring.stack(times, envs), ring.stack(times + last, envs)
    online, target = moved(q_policy.q_net), moved(q_policy.q_net_target)
    batch = bootstrap(target, ReplayBatch(seen, envs % 6, returns, after, discounts))
    assert q_loss(online, batch).device == GPU
