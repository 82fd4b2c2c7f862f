"""The copy of a network that acts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces

from agents.acting import InferenceCopy
from agents.policies import PixelActorCriticPolicy, Precision


def make_policy(precision: Precision, encoder: str = "nature") -> PixelActorCriticPolicy:
    return PixelActorCriticPolicy(
        spaces.Box(0, 255, (4, 84, 84), np.uint8),
        spaces.Discrete(6),
        lambda _: 1e-3,
        features_extractor_kwargs={"encoder": encoder},
        precision=precision,
    )


def observations(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (count, 4, 84, 84), dtype=torch.uint8, generator=generator)


def act(policy: PixelActorCriticPolicy, seen: torch.Tensor) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(3)
    with torch.no_grad():
        return (*policy(seen), policy.predict_values(seen))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("encoder", ["nature", "lenet", "impala"])
def test_it_acts_as_the_policy_to_the_bit_before_and_after_learning(
    precision: Precision, encoder: str
) -> None:
    policy, seen = make_policy(precision, encoder), observations(8)
    actor = InferenceCopy(policy)
    told = []
    for _ in range(2):
        actor.follow()
        for mine, its in zip(act(actor.network, seen), act(policy, seen), strict=True):
            assert torch.equal(mine, its)
        told.append(act(actor.network, seen)[2])
        values, log_probs, _ = policy.evaluate_actions(seen, torch.zeros(8, dtype=torch.long))
        (values.sum() - log_probs.sum()).backward()
        policy.optimizer.step()
    assert not torch.equal(*told)


def test_only_the_encoders_weights_are_kept_in_bfloat16() -> None:
    policy = make_policy("bf16")
    copied = InferenceCopy(policy).network
    assert {p.dtype for p in copied.features_extractor.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in copied.action_net.parameters()} == {torch.float32}
    assert {p.dtype for p in policy.parameters()} == {torch.float32}
    assert copied.optimizer is None
    assert policy.optimizer is not None
