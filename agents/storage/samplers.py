"""Which transitions make a batch, and how their rewards are summed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch


class NStepReturns:
    """Sums of rewards over up to ``n_steps`` steps (Sutton & Barto 2018, equation 7.1).

    A window ends early at the end of an episode, at a truncation, and at the newest transition
    stored, and is bootstrapped with the discount of the steps it then has. ``gamma`` is the
    discount factor; ``device`` is where transitions are stored.
    """

    def __init__(self, n_steps: int, gamma: float, device: torch.device | str = "cpu") -> None:
        self.n_steps = n_steps
        powers = [gamma**step for step in range(n_steps + 1)]
        self.powers = torch.tensor(powers, dtype=torch.float32, device=device)
        self.steps = torch.arange(n_steps, device=device)

    def __call__(
        self, rewards: torch.Tensor, terminated: torch.Tensor, ended: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Returns, bootstrap discounts and last steps of windows.

        Args:
            rewards: float32 (batch, n_steps).
            terminated: bool (batch, n_steps), nothing to bootstrap from after this step.
            ended: bool (batch, n_steps), the window ends with this step, for whatever reason.

        Returns:
            Returns float32 (batch,), discounts float32 (batch,), zero where the window terminated,
            and the index of each window's last step, int64 (batch,).
        """
        gone_on = (~ended[:, :-1]).long().cumprod(dim=1)
        last = gone_on.sum(dim=1)
        returns = rewards[:, 0] + (rewards[:, 1:] * gone_on * self.powers[1:-1]).sum(dim=1)
        terminal = terminated.gather(1, last[:, None]).squeeze(1)
        return returns, self.powers[last + 1].masked_fill(terminal, 0), last


class Draw(NamedTuple):
    """Transitions chosen from a replay, on its device."""

    times: torch.Tensor  # int64 (batch,)
    envs: torch.Tensor  # int64 (batch,)
    weights: torch.Tensor  # float32 (batch,), of their losses


class Sampler:
    """Chooses transitions of a replay, without waiting for the device.

    A replay reports all its changes. ``bounds`` are int64 (1 + environments,): the time after the
    newest transition, then each environment's oldest time.
    """

    generator: torch.Generator
    """All its randomness, which snapshots keep and graphs register."""

    uses_priorities: bool = False
    """Whether :meth:`set_priorities` does anything."""

    def sample(self, batch_size: int, bounds: torch.Tensor) -> Draw:
        """Transitions drawn with replacement; at least one must lie between the bounds."""
        raise NotImplementedError

    def add(self, before: torch.Tensor, after: torch.Tensor) -> None:
        """Follows one step of all environments, from the bounds before it to those after it."""

    def restrict(self, bounds: torch.Tensor) -> None:
        """Forgets all transitions out of bounds, after any other change of them."""

    def set_priorities(
        self, places: torch.Tensor, priorities: torch.Tensor, bounds: torch.Tensor
    ) -> None:
        """Gives transitions new priorities, float32 (batch,) from 0.

        ``places`` come from a :class:`~agents.storage.replay.ReplayBatch`. Transitions that are out
        of bounds by now are left out. A transition that comes twice takes its largest priority.
        """

    def anneal(self, progress: float) -> None:
        """Sets what changes during a training, of which the share ``progress`` is done."""

    def state(self, rows: int) -> dict[str, torch.Tensor]:
        """All but the generator, by name, for the first ``rows`` places of each environment."""
        return {}

    def load_state(self, state: Mapping[str, torch.Tensor], bounds: torch.Tensor) -> None:
        """Takes over what :meth:`state` returned, or begins anew if it is empty."""

    def check_valid(self, bounds: torch.Tensor) -> None:
        """Raises AssertionError where it contradicts itself or the bounds; for tests, slow."""


class UniformSampler(Sampler):
    """Every transition is as likely as another; seed None takes one from the operating system."""

    def __init__(self, device: torch.device | str, seed: int | None = None) -> None:
        self.generator = torch.Generator(device)
        if seed is None:
            self.generator.seed()
        else:
            self.generator.manual_seed(seed)

    def sample(self, batch_size: int, bounds: torch.Tensor) -> Draw:
        """As :meth:`Sampler.sample`; all weights are 1."""
        ends = (bounds[0] - bounds[1:]).cumsum(0)
        # The remainder of so large a number is uniform to one part in 10**12 for 10**6 transitions.
        numbers = torch.randint(
            2**62, (batch_size,), generator=self.generator, device=bounds.device
        )
        numbers = numbers % ends[-1]
        envs = torch.searchsorted(ends, numbers, right=True)
        weights = torch.ones(batch_size, device=bounds.device)
        return Draw(bounds[0] - ends[envs] + numbers, envs, weights)
