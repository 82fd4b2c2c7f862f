"""C51, QR-DQN and IQN learn the distribution of returns of a tiny world, which is known."""

from __future__ import annotations

import pytest
import torch

from agents.dqn.objectives import make_objective
from agents.dqn.variant import DQNVariant
from agents.networks.head_options import HeadName
from agents.networks.heads import make_head
from agents.storage.replay import ReplayBatch

pytestmark = pytest.mark.usefixtures("one_thread")

# Two steps. Action 0 earns 0 or 20 by a fair coin, action 1 earns 0; values of the second step
# count half. Whoever takes action 0 twice gets 0, 10, 20 or 30, each with a chance of a quarter.
GAMMA, RETURNS = 0.5, [0.0, 10.0, 20.0, 30.0]
SIZE = 64
# Implicit quantiles are functions of as many cosines embedded as there are features.
REPEATS = 16


class States(torch.nn.Module):
    """A Q network whose features are the states, one-hot, several times over."""

    def __init__(self, variant: DQNVariant) -> None:
        super().__init__()
        self.q_net = make_head(2 * REPEATS, 2, variant)

    def extract_features(self, obs: torch.Tensor) -> torch.Tensor:
        return obs.repeat(1, REPEATS)


def transitions(draws: torch.Generator) -> ReplayBatch:
    first, actions, coins = (torch.randint(2, (SIZE,), generator=draws) for _ in range(3))
    states = torch.eye(2)
    return ReplayBatch(
        observations=states[1 - first],
        actions=actions,
        rewards=20.0 * coins * (actions == 0),
        next_observations=states[torch.ones_like(first)],
        discounts=GAMMA * first,
        weights=torch.ones(SIZE),
        places=torch.arange(SIZE),
    )


@pytest.mark.parametrize(("head", "rate"), [("c51", 0.02), ("qr", 0.1), ("iqn", 0.01)])
def test_the_distribution_of_returns_is_recovered(head: HeadName, rate: float) -> None:
    torch.manual_seed(0)
    variant = DQNVariant(
        head=head,
        head_units=32,
        quantiles=4,
        atoms=41,
        v_min=-5.0,
        v_max=35.0,
        iqn_samples=8,
        iqn_target_samples=8,
    )
    online, target = States(variant), States(variant)
    objective, draws = make_objective(variant), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(online.parameters(), lr=rate)
    updates = 800
    for update in range(updates):
        for group in optimizer.param_groups:
            group["lr"] = rate * (1 - update / updates)
        if update % 25 == 0:
            target.load_state_dict(online.state_dict())
        learned = objective.prepare(target, transitions(draws), draws)
        optimizer.zero_grad()
        objective.loss(online, learned, draws).loss.mean().backward()
        optimizer.step()

    with torch.no_grad():
        start = online.extract_features(torch.eye(2)[:1])
        mean, other = online.q_net.q_values(start)[0].tolist()
        outputs = online.q_net.outputs(start, None, 4).values[0, 0]
    if head == "c51":
        chances = outputs.softmax(dim=0).cumsum(dim=0)
        places = torch.searchsorted(chances, torch.tensor([0.125, 0.375, 0.625, 0.875]))
        outputs = torch.linspace(-5, 35, 41)[places]
    assert mean == pytest.approx(15, abs=1.5)
    # Action 1 earns nothing now, and half of 0 or 20 in the next step.
    assert other == pytest.approx(5, abs=1.5)
    assert outputs.tolist() == pytest.approx(RETURNS, abs=3)
