"""The host does not wait in what a graph contains: acting, PPO's loss, DQN's sampling and loss."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from support.pretend_gpu import CUDA, PretendGPU

from agents.dqn.objectives import make_objective
from agents.dqn.variant import DQNVariant
from agents.networks.policies import PixelActorCriticPolicy, PixelDQNPolicy
from agents.ppo.learner import PPOLearner
from agents.ppo.objective import PPOObjective
from agents.storage.codecs import PixelCodec
from agents.storage.frame_ring import FrameRing
from agents.storage.replay import ReplayBatch
from agents.storage.rollout import FrameRollout
from agents.storage.samplers import NStepReturns, UniformSampler
from agents.storage.stacking import push_frames
from envs.stacking import FrameStacking

pytestmark = pytest.mark.usefixtures("one_thread", "pretend_gpu")

SPACE, ACTIONS = spaces.Box(0, 255, (4, 36, 36), np.uint8), spaces.Discrete(6)
STACKING = FrameStacking(4, 1)
LENET: dict[str, Any] = {"encoder": "lenet", "encoder_options": {"features_dim": 16}}


@pytest.fixture
def policy(pretend_gpu: PretendGPU) -> PixelActorCriticPolicy:
    return PixelActorCriticPolicy(
        SPACE, ACTIONS, lambda _: 1e-3, features_extractor_kwargs=LENET, precision="fp32"
    ).to(CUDA)


def pixels(*shape: int) -> torch.Tensor:
    return torch.randint(256, (*shape, 36, 36), dtype=torch.uint8, device=CUDA)


def test_acting_does_not_wait(policy: PixelActorCriticPolicy, pretend_gpu: PretendGPU) -> None:
    stacks, newest, stack_reset = pixels(8, 4), pixels(8, 1), torch.zeros(8, device=CUDA) > 0
    pretend_gpu.events.clear()
    with torch.no_grad():
        decided = policy(push_frames(stacks, newest, stack_reset, STACKING))
    assert [tensor.device for tensor in decided] == [CUDA] * 3
    assert not pretend_gpu.events


def test_the_loss_of_a_minibatch_does_not_wait(
    policy: PixelActorCriticPolicy, pretend_gpu: PretendGPU
) -> None:
    rollout = FrameRollout(16, 16, PixelCodec(STACKING, SPACE.shape), CUDA)
    learner = PPOLearner(policy, PPOObjective(True, True, 0.5), max_grad_norm=0.5)
    learner.set_coefficients(clip_range=0.1, clip_range_vf=0.2, ent_coef=0.01)
    indices = torch.arange(64, device=CUDA)
    pretend_gpu.events.clear()
    loss, metrics = learner.loss(rollout.batch(indices))
    loss.backward()
    assert loss.device == metrics.device == CUDA
    assert not pretend_gpu.events


def test_sampling_and_the_loss_of_dqn_do_not_wait(pretend_gpu: PretendGPU) -> None:
    policy = PixelDQNPolicy(
        SPACE, ACTIONS, lambda _: 1e-4, features_extractor_kwargs=LENET, precision="fp32"
    ).to(CUDA)
    sampler, n_step = UniformSampler(CUDA, 0), NStepReturns(3, 0.99, CUDA)
    # The newest transition is at time 19; the oldest of each environment at 3.
    bounds = torch.tensor([20] + [3] * 8, device=CUDA)
    frames_in_stack = torch.full((50, 8), 3, dtype=torch.uint8, device=CUDA)
    ring = FrameRing(pixels(50, 8, 1), frames_in_stack, policy.q_net.storage_spec(STACKING))
    flags, rewards = torch.zeros(32, 3, device=CUDA) > 0, torch.rand(32, 3, device=CUDA)
    pretend_gpu.events.clear()
    times, envs, weights = sampler.sample(32, bounds)
    returns, discounts, last = n_step(rewards, flags, flags)
    seen, after = ring.stack(times, envs), ring.stack(times + last, envs)
    batch = ReplayBatch(seen, envs % 6, returns, after, discounts, weights, times)
    objective = make_objective(DQNVariant())
    learned = objective.prepare(policy.q_net_target, batch, None)
    loss, priorities = objective.loss(policy.q_net, learned, None)
    loss.mean().backward()
    assert loss.device == priorities.device == CUDA
    assert not pretend_gpu.events
