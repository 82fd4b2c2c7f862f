"""Actors, and the copy of the network by which they act."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from gymnasium import spaces
from support.event_streams import EVENTS, Event, Stream
from support.pretend_gpu import CUDA, PretendGPU
from torch import nn
from torch.nn import functional

from agents.collect.actor import CudaRolloutActor, RolloutActor, make_actor
from agents.collect.inference_copy import InferenceCopy
from agents.networks.policies import PixelActorCriticPolicy, Precision
from agents.storage.codecs import PixelCodec
from envs.stacking import FrameStacking
from rlcnn.accelerate.cuda_graphs import make_recorder
from rlcnn.accelerate.devices import use_threads


def make_policy(
    precision: Precision, encoder: str = "nature", **options: str
) -> PixelActorCriticPolicy:
    return PixelActorCriticPolicy(
        spaces.Box(0, 255, (4, 84, 84), np.uint8),
        spaces.Discrete(6),
        lambda _: 1e-3,
        features_extractor_kwargs={"encoder": encoder, "encoder_options": options},
        precision=precision,
    )


def observations(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (count, 4, 84, 84), dtype=torch.uint8, generator=generator)


def act(policy: PixelActorCriticPolicy, seen: torch.Tensor) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(3)
    with torch.no_grad():
        return (*policy(seen), policy.predict_values(seen))


@pytest.mark.parametrize("precision, apart", [("fp32", False), ("fp32", True), ("bf16", False)])
@pytest.mark.parametrize(
    ("encoder", "options"),
    [
        ("nature", {}),
        ("lenet", {}),
        ("impala", {}),
        ("impala", {"spectral_norm": "residual", "norm": "layer"}),
    ],
    ids=["nature", "lenet", "impala", "impala-normalised"],
)
def test_it_acts_as_the_policy_to_the_bit_before_and_after_learning(
    precision: Precision, apart: bool, encoder: str, options: dict[str, str]
) -> None:
    policy, seen = make_policy(precision, encoder, **options), observations(8)
    policy.eval()
    copied = InferenceCopy(policy, apart)
    log_probs_seen = []
    for _ in range(2):
        copied.sync()
        for mine, its in zip(act(copied.network, seen), act(policy, seen), strict=True):
            assert torch.equal(mine, its)
        log_probs_seen.append(act(copied.network, seen)[2])
        # In training a call moves estimates of spectral norms.
        policy.train()
        values, log_probs, _ = policy.evaluate_actions(seen, torch.zeros(8, dtype=torch.long))
        policy.eval()
        (values.sum() - log_probs.sum()).backward()
        policy.optimizer.step()
    assert not torch.equal(*log_probs_seen)


def test_only_the_encoders_weights_are_kept_in_bfloat16() -> None:
    policy = make_policy("bf16")
    copied = InferenceCopy(policy).network
    encoder = dict(copied.features_extractor.encoder.named_parameters())
    # The cached kernel of the first convolution is computed from exact weights.
    exact = {name for name, p in encoder.items() if p.dtype == torch.float32}
    assert exact == {"trunk.conv1.weight", "trunk.conv1.bias"}
    assert {p.dtype for name, p in encoder.items() if name not in exact} == {torch.bfloat16}
    assert {p.dtype for p in copied.action_net.parameters()} == {torch.float32}
    assert {p.dtype for p in policy.parameters()} == {torch.float32}
    assert copied.optimizer is None
    assert policy.optimizer is not None


class Standardized(nn.Conv2d):
    """A convolution by weights of mean 0 and deviation 1, as some published networks have."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = (self.weight - self.weight.mean()) / self.weight.std()
        return functional.conv2d(x, weight, self.bias, self.stride)


def test_what_computes_with_its_weights_first_is_not_rounded_before() -> None:
    policy, seen = make_policy("bf16"), observations(8)
    trunk = policy.features_extractor.encoder.trunk
    trunk.conv3 = Standardized(64, 64, kernel_size=3).to(memory_format=torch.channels_last)
    copied = InferenceCopy(policy)
    copied.sync()
    for mine, its in zip(act(copied.network, seen), act(policy, seen), strict=True):
        assert torch.equal(mine, its)


# -- playing ---------------------------------------------------------------------------------------

N_ENVS = 3


def play(
    actor: RolloutActor, stacking: FrameStacking, steps: int = 12
) -> tuple[list[torch.Tensor], list[np.ndarray]]:
    """An actor's log probabilities and actions on a stream of frames with all kinds of ends.

    At every step it must hold the environments' observations, and act on them.
    """
    device = actor.policy.device
    stream = Stream(N_ENVS, stacking, size=(36, 36))
    rng = np.random.default_rng(0)
    torch.manual_seed(5)
    observations = stream.reset()
    log_probs, actions = [], []
    for step in range(steps):
        # As between two rollouts; and once the environments were left and reset meanwhile.
        if step == 8:
            observations = stream.reset()
        if step % 4 == 0:
            actor.reset(observations)
        actions.append(actor.act())
        seen = torch.as_tensor(observations, device=device)
        assert torch.equal(actor.observations, seen)
        with torch.no_grad():
            values, expected, _ = actor.policy.evaluate_actions(seen, actor.actions)
        assert np.array_equal(actor.actions.cpu().numpy(), actions[-1])
        assert torch.equal(actor.values.flatten(), values.flatten())
        assert torch.equal(actor.log_probs, expected)
        log_probs.append(actor.log_probs.clone())
        events: list[Event] = [EVENTS[rng.integers(len(EVENTS))] for _ in range(N_ENVS)]
        after = stream.step(events)
        last = np.stack([info.get("terminal_observation", observations[0]) for info in after.infos])
        cut_off = np.array([event == "cut off" for event in events])
        if cut_off.any():
            worth = actor.truncation_values(last[cut_off], np.flatnonzero(cut_off))
            expected = actor.policy.predict_values(torch.as_tensor(last[cut_off], device=device))
            # A GPU values as many images as there are environments, which rounds otherwise.
            assert np.allclose(
                worth, expected.detach().flatten().cpu().numpy(), rtol=1e-4, atol=1e-6
            )
        stack_reset = np.array([event in ("ended", "cut off") for event in events])
        actor.observe(after.observations, stack_reset)
        observations = after.observations
        assert torch.equal(
            actor.current_values().flatten(),
            actor.policy.predict_values(torch.as_tensor(observations, device=device))
            .detach()
            .flatten(),
        )
    return log_probs, actions


def tiny_policy(stacking: FrameStacking) -> PixelActorCriticPolicy:
    torch.manual_seed(0)
    return PixelActorCriticPolicy(
        spaces.Box(0, 255, (stacking.depth * stacking.channels, 36, 36), np.uint8),
        spaces.Discrete(5),
        lambda _: 1e-3,
        features_extractor_kwargs={"encoder": "lenet", "encoder_options": {"features_dim": 16}},
    )


# Stacks of one frame are not padded.
@pytest.mark.parametrize(
    ("depth", "channels", "padding"),
    [(3, 1, "zeros"), (3, 1, "repeat"), (2, 3, "zeros"), (1, 1, "zeros")],
)
def test_actors_stand_where_the_environments_do_and_act_on_it(
    depth: int, channels: int, padding: Literal["zeros", "repeat"], pretend_gpu: PretendGPU
) -> None:
    stacking = FrameStacking(depth, channels, padding)
    policy = tiny_policy(stacking)
    codec = policy.storage_spec(stacking)
    play(RolloutActor(policy, codec, torch.device("cpu")), stacking)
    policy.to(CUDA)
    captured = CudaRolloutActor(policy, codec, CUDA, make_recorder(CUDA))
    assert not captured.ready
    played = [play(captured, stacking)]
    assert captured.ready
    # Three of the twelve steps warm up.
    assert (pretend_gpu.captures, pretend_gpu.replays) == (1, 9)
    played.append(play(CudaRolloutActor(policy, codec, CUDA, None), stacking))
    for mine, its in zip(*(log_probs for log_probs, _ in played), strict=True):
        assert torch.equal(mine, its)
    assert np.array_equal(*(np.array(actions) for _, actions in played))


def test_a_captured_step_acts_by_what_was_learned_since(pretend_gpu: PretendGPU) -> None:
    policy, stacking = make_policy("bf16").to(CUDA), FrameStacking(4, 1)
    copied = InferenceCopy(policy)
    codec = copied.network.storage_spec(stacking)
    actor = CudaRolloutActor(copied.network, codec, CUDA, make_recorder(CUDA))
    shown = observations(3).numpy()
    values_seen = []
    for _ in range(2):
        copied.sync()
        actor.reset(shown)
        for _ in range(4):
            # The same frame again and again.
            shown = np.concatenate([shown[:, 1:], shown[:, -1:]], axis=1)
            actor.observe(shown, np.zeros(3, dtype=bool))
        seen = torch.as_tensor(shown, device=CUDA)
        values, log_probs, _ = policy.evaluate_actions(seen, actor.actions)
        assert torch.equal(actor.values, values)
        assert torch.equal(actor.log_probs, log_probs)
        values_seen.append(actor.values.clone())
        (values.sum() - log_probs.sum()).backward()
        policy.optimizer.step()
    assert pretend_gpu.captures == 1
    assert pretend_gpu.replays >= 4
    assert not torch.equal(*values_seen)


def test_a_staged_player_draws_from_the_policy() -> None:
    stacking = FrameStacking(1, 1)
    policy = tiny_policy(stacking)
    with torch.no_grad():
        policy.action_net.weight.zero_()
        policy.action_net.bias.copy_(torch.tensor([0.5, 0.25, 0.125, 0.0625, 0.0625]).log())
    actor = CudaRolloutActor(policy, policy.storage_spec(stacking), torch.device("cpu"), None)
    torch.manual_seed(0)
    shown = np.zeros((1000, 1, 36, 36), np.uint8)
    actor.reset(shown)
    first, counts = actor.act(), np.zeros(5)
    for _ in range(4):
        actor.observe(shown.copy(), np.zeros(1000, dtype=bool))
        actions = actor.act()
        assert not np.array_equal(actions, first)
        counts += np.bincount(actions, minlength=5)
    # 4,000 draws: a share of one half has a standard deviation of 0.008.
    assert np.abs(counts / 4000 - [0.5, 0.25, 0.125, 0.0625, 0.0625]).max() < 0.03


def test_only_a_gpu_gets_an_actor_that_stages() -> None:
    stacking = FrameStacking(1, 1)
    policy = tiny_policy(stacking)
    actor = make_actor(policy, policy.storage_spec(stacking), torch.device("cpu"), graphs=True)
    assert type(actor) is RolloutActor
    assert actor.ready


@pytest.mark.gpu
@pytest.mark.parametrize("graphs", [False, True])
def test_on_a_gpu_a_step_waits_for_its_actions_only(graphs: bool) -> None:
    stacking, device = FrameStacking(4, 1), torch.device("cuda")
    policy = make_policy("bf16").to(device)
    policy.set_training_mode(False)
    actor = make_actor(policy, policy.storage_spec(stacking), device, graphs)
    rng = np.random.default_rng(0)
    stacks = rng.integers(256, size=(16, 4, 84, 84), dtype=np.uint8)
    actor.reset(stacks)
    for step in range(10):
        # The first looks take memory and are captured, which waits.
        torch.cuda.set_sync_debug_mode("default" if step < 6 else "error")
        try:
            assert actor.act().shape == (16,)
            stacks = np.concatenate(
                [stacks[:, 1:], rng.integers(256, size=(16, 1, 84, 84), dtype=np.uint8)], axis=1
            )
            actor.observe(stacks, np.zeros(16, dtype=bool))
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert torch.equal(actor.observations.cpu(), torch.as_tensor(stacks))
    assert actor.ready


@pytest.mark.parametrize("encoder, n_envs, expected", [("nature", 8, 1), ("nature", 64, 2)])
def test_little_work_is_done_by_fewer_threads(encoder: str, n_envs: int, expected: int) -> None:
    space = spaces.Box(0, 255, (4, 84, 84), np.uint8)
    policy = PixelActorCriticPolicy(
        space,
        spaces.Discrete(6),
        lambda _: 1e-3,
        features_extractor_kwargs={"encoder": encoder},
    )
    observations = np.zeros((n_envs, 4, 84, 84), np.uint8)
    actor = RolloutActor(policy, PixelCodec(FrameStacking(4, 1), (4, 84, 84)), torch.device("cpu"))
    actor.reset(observations)
    # More may be given, or taken away, between two rollouts.
    for usable in (4, 1, 4):
        with use_threads(usable):
            assert actor.threads == min(usable, expected)
