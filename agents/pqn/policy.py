"""PQN's policy: a Q network without a target network."""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.type_aliases import Schedule
from torch import nn

from agents.networks.policies import PixelDQNPolicy, PixelQNetwork


class PixelPQNPolicy(PixelDQNPolicy):
    """A Q network, ``q_net``, with the arguments of its base class.

    The optimizer is RAdam (Liu et al. 2020) by default. There is no target network.
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Discrete,
        lr_schedule: Schedule,
        net_arch: list[int] | None = None,
        **options: Any,
    ) -> None:
        chosen = {"optimizer_class": torch.optim.RAdam, **options}
        super().__init__(observation_space, action_space, lr_schedule, net_arch, **chosen)

    def _build(self, lr_schedule: Schedule) -> None:
        self.q_net = self.make_q_net()
        rate: dict[str, Any] = {"lr": lr_schedule(1)}
        self.optimizer = self.optimizer_class(
            self.q_net.parameters(), **rate, **self.optimizer_kwargs
        )


class GreedyPolicy(nn.Module):
    """A Q network as actors use it: the action of greatest value, and this value."""

    def __init__(self, q_net: PixelQNetwork) -> None:
        super().__init__()
        self.q_net = q_net

    def forward(
        self, obs: torch.Tensor, *, generator: torch.Generator | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Actions int64 (batch,), values float32 (batch,), and zeros: no probabilities."""
        values, actions = self.q_net(obs).max(dim=1)
        return actions, values, torch.zeros_like(values)

    def predict_values(self, obs: torch.Tensor) -> torch.Tensor:
        """Greatest values, float32 (batch, 1)."""
        return self.q_net(obs).amax(dim=1, keepdim=True)
