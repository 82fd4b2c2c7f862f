"""Heads on an encoder: what they sample, in which precision, and what they share."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch.distributions import Categorical

from agents.networks.policies import PixelActorCriticPolicy, PixelDQNPolicy, Precision
from envs.errors import UserError
from rlcnn.encoders import create_encoder

LENET = {"encoder": "lenet", "encoder_options": {"features_dim": 32}}


def make_policy(kind: Any, channels: int = 4, n_actions: int = 4, **options: Any) -> Any:
    torch.manual_seed(0)
    space = spaces.Box(0, 255, (channels, 36, 36), np.uint8)
    options = {"features_extractor_kwargs": LENET, **options}
    return kind(space, spaces.Discrete(n_actions), lambda _: 1e-3, **options)


def images(batch: int, channels: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(256, (batch, channels, 36, 36), generator=generator, dtype=torch.uint8)


def test_actions_are_drawn_with_the_probabilities_of_the_softmax() -> None:
    policy = make_policy(PixelActorCriticPolicy)
    wanted = torch.tensor([0.5, 0.3, 0.15, 0.05])
    with torch.no_grad():
        policy.action_net.weight.zero_()
        policy.action_net.bias.copy_(wanted.log() + 7)
        torch.manual_seed(0)
        drawn = [policy(images(100)) for _ in range(30)]
    actions, _, log_probs = (torch.cat(column) for column in zip(*drawn, strict=True))
    counts = torch.bincount(actions, minlength=4)
    expected = 3_000 * wanted
    chi_square = ((counts - expected) ** 2 / expected).sum()
    # 99.9% of true samples lie below, with 3 degrees of freedom.
    assert chi_square < 16.27
    torch.testing.assert_close(log_probs.exp(), wanted[actions])


def test_an_action_without_probability_is_never_drawn() -> None:
    policy = make_policy(PixelActorCriticPolicy)
    with torch.no_grad():
        policy.action_net.weight.zero_()
        policy.action_net.bias.copy_(torch.tensor([0.0, -1e9, 0.0, 200.0]))
        actions, _, log_probs = policy(images(500))
        _, _, entropy = policy.evaluate_actions(images(500), actions)
    assert set(actions.tolist()) == {3}
    assert torch.isfinite(log_probs).all()
    torch.testing.assert_close(entropy, torch.zeros(500))


def test_the_heads_tell_the_same_as_torchs_categorical() -> None:
    policy = make_policy(PixelActorCriticPolicy, ortho_init=False)
    observations = images(16)
    with torch.no_grad():
        logits, values = policy.logits_and_values(observations)
        actions, sampled_values, log_probs = policy(observations)
        again, evaluated, entropy = policy.evaluate_actions(observations, actions)
        truth = Categorical(logits=logits)
        assert policy.get_distribution(observations).distribution.probs.equal(truth.probs)
        best = policy(observations, deterministic=True)[0]
    torch.testing.assert_close(log_probs, truth.log_prob(actions))
    torch.testing.assert_close(evaluated, truth.log_prob(actions))
    torch.testing.assert_close(entropy, truth.entropy())
    torch.testing.assert_close(best, truth.probs.argmax(dim=1))
    for computed in (sampled_values, again, policy.predict_values(observations)):
        torch.testing.assert_close(computed[:, 0], values)


@pytest.mark.parametrize("channels", [4, 12])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", [PixelActorCriticPolicy, PixelDQNPolicy])
def test_grey_and_colour_in_either_precision(
    kind: Any, channels: int, precision: Precision
) -> None:
    policy = make_policy(kind, channels, n_actions=6, precision=precision)
    actions, _ = policy.predict(images(5, channels).numpy(), deterministic=True)
    assert actions.shape == (5,)
    assert all(parameter.dtype == torch.float32 for parameter in policy.parameters())


def outputs(policy: Any, observations: torch.Tensor) -> list[torch.Tensor]:
    if isinstance(policy, PixelDQNPolicy):
        return [policy.q_net(observations)]
    return list(policy.logits_and_values(observations))


@pytest.mark.parametrize("kind", [PixelActorCriticPolicy, PixelDQNPolicy])
def test_bfloat16_stays_close_and_leaves_the_heads_alone(kind: Any) -> None:
    full = make_policy(kind)
    half = make_policy(kind, precision="bf16")
    half.load_state_dict(full.state_dict())
    observations = images(64)
    with torch.no_grad():
        for exact, near in zip(
            outputs(full, observations), outputs(half, observations), strict=True
        ):
            assert near.dtype == torch.float32
            spread = exact.std()
            assert (exact - near).abs().max() < 0.1 * spread
            assert not torch.equal(exact, near), "bf16 changed nothing: was it on?"


@pytest.mark.parametrize("kind", [PixelActorCriticPolicy, PixelDQNPolicy])
def test_gradients_reach_every_parameter(kind: Any) -> None:
    policy = make_policy(kind, precision="bf16")
    sum(output.sum() for output in outputs(policy, images(8))).backward()
    learning = policy.q_net if kind is PixelDQNPolicy else policy
    for name, parameter in learning.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.dtype == torch.float32
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("built", [False, True])
def test_the_target_network_has_an_encoder_of_its_own(built: bool) -> None:
    shape = (4, 36, 36)
    encoder = create_encoder("lenet", shape, features_dim=32) if built else "lenet"
    policy = make_policy(PixelDQNPolicy, features_extractor_kwargs={"encoder": encoder})
    ours = dict(policy.q_net.named_parameters())
    theirs = dict(policy.q_net_target.named_parameters())
    assert ours.keys() == theirs.keys()
    assert any("features_extractor" in name for name in ours)
    for name, parameter in ours.items():
        assert parameter.data_ptr() != theirs[name].data_ptr(), name
        assert torch.equal(parameter, theirs[name]), name
    optimised = {id(p) for group in policy.optimizer.param_groups for p in group["params"]}
    assert optimised == {id(parameter) for parameter in ours.values()}


def test_policy_and_value_share_one_encoder() -> None:
    policy = make_policy(PixelActorCriticPolicy)
    assert policy.pi_features_extractor is policy.vf_features_extractor
    optimised = [p for group in policy.optimizer.param_groups for p in group["params"]]
    assert len(optimised) == len(set(map(id, optimised))) == len(list(policy.parameters()))


def test_convolutions_lie_in_channels_last() -> None:
    policy = make_policy(PixelActorCriticPolicy)
    dqn = make_policy(PixelDQNPolicy)
    for module in (policy, dqn.q_net, dqn.q_net_target):
        convolutions = [m for m in module.modules() if isinstance(m, torch.nn.Conv2d)]
        assert convolutions
        for convolution in convolutions:
            if min(convolution.weight.shape[1:]) > 1:
                assert convolution.weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("kind", [PixelActorCriticPolicy, PixelDQNPolicy])
def test_an_unknown_precision_is_refused(kind: Any) -> None:
    with pytest.raises(UserError, match=r"precision must be one of .*, not 'fp16'"):
        make_policy(kind, precision="fp16")


@pytest.mark.parametrize("kind", [PixelActorCriticPolicy, PixelDQNPolicy])
def test_a_policy_is_saved_and_loaded_by_stable_baselines3(kind: Any, tmp_path: Any) -> None:
    policy = make_policy(kind, precision="bf16", net_arch=[8])
    policy.save(tmp_path / "policy")
    again = kind.load(tmp_path / "policy")
    assert again.precision == "bf16"
    for mine, loaded in zip(outputs(policy, images(3)), outputs(again, images(3)), strict=True):
        torch.testing.assert_close(mine, loaded, rtol=0, atol=0)


# Encoders that draw different numbers of values, and give as many features.
OF_256 = (
    {"encoder": "lenet", "encoder_options": {"features_dim": 256}},
    {"encoder": "impala"},
)


def head_of(policy: Any) -> dict[str, torch.Tensor]:
    tensors = policy.state_dict()
    return {name: tensors[name] for name in tensors if "features_extractor" not in name}


@pytest.mark.parametrize("kind", [PixelActorCriticPolicy, PixelDQNPolicy])
@pytest.mark.parametrize("net_arch", [[], [16]])
def test_heads_of_one_shape_start_equal_behind_any_encoder(kind: Any, net_arch: list[int]) -> None:
    policies = [
        make_policy(kind, net_arch=net_arch, features_extractor_kwargs=encoder)
        for encoder in OF_256
    ]
    first, second = map(head_of, policies)
    assert first
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert tensor.equal(second[name]), name


@pytest.mark.parametrize("kind", [PixelActorCriticPolicy, PixelDQNPolicy])
def test_what_is_drawn_after_a_policy_was_made_does_not_hang_on_its_encoder(kind: Any) -> None:
    drawn = []
    for encoder in OF_256:
        make_policy(kind, features_extractor_kwargs=encoder)
        drawn.append(torch.randn(5))
    assert drawn[0].equal(drawn[1])


@pytest.mark.parametrize("kind", [PixelActorCriticPolicy, PixelDQNPolicy])
def test_a_policys_first_values_follow_torchs_seed(kind: Any) -> None:
    same = [make_policy(kind).state_dict() for _ in range(2)]
    torch.manual_seed(1)
    space = spaces.Box(0, 255, (4, 36, 36), np.uint8)
    other = kind(space, spaces.Discrete(4), lambda _: 1e-3, features_extractor_kwargs=LENET)
    for name, tensor in same[0].items():
        assert tensor.equal(same[1][name])
    changed = {
        name for name, tensor in other.state_dict().items() if not tensor.equal(same[0][name])
    }
    assert any("features_extractor" in name for name in changed)
    assert any("features_extractor" not in name for name in changed)
