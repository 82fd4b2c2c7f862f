"""Prioritised replay (Schaul et al. 2016, "Prioritized Experience Replay"), in proportion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch

from agents.storage.samplers import Draw, Sampler, UniformSampler
from agents.storage.sum_tree import SumTree

# A step removes at most so many transitions of an environment: a truncation takes a second frame.
_MOST_REMOVED = 2


class Priorities(NamedTuple):
    """How priorities become chances, as :class:`agents.dqn.config.DQNConfig` describes it."""

    alpha: float = 0.6
    beta_initial: float = 0.4
    beta_final: float = 1.0
    uniform_share: float = 1e-3
    epsilon: float = 0.0


class PrioritizedSampler(Sampler):
    """Draws transitions in proportion to ``(priority + epsilon) ** alpha``.

    Draws are independent of each other, as in dqn_zoo (``replay.py``, ``PrioritizedDistribution``),
    and a share of them is uniform over all transitions. A draw of probability ``P`` among ``N``
    transitions has the importance weight ``(N P) ** -beta``, divided by the largest of its batch.
    New transitions have the largest priority that any had so far, at first 1.

    A transition has a priority as long as it can be sampled; its n-step window need not be
    complete, just as with :class:`UniformSampler`.

    With ``overlap`` a batch is drawn before the update under way has set its priorities.

    Args:
        capacity: transitions of each environment.
        n_envs: environments.
        device: where everything lies.
        seed: of all draws; None takes one from the operating system.
        priorities: the options.
    """

    uses_priorities = True

    def __init__(
        self,
        capacity: int,
        n_envs: int,
        device: torch.device | str,
        seed: int | None,
        priorities: Priorities,
    ) -> None:
        self._uniform = UniformSampler(device, seed)
        self.generator = self._uniform.generator
        self.options, self._capacity, self._n_envs = priorities, capacity, n_envs
        self._tree = SumTree(capacity * n_envs, device)
        self._envs = torch.arange(n_envs, device=device)
        self._ages = torch.arange(_MOST_REMOVED, device=device)[:, None]
        # As the tree's numbers: to the power of alpha.
        self._largest = torch.ones((), dtype=torch.float64, device=device)
        self._beta = torch.full_like(self._largest, priorities.beta_initial)

    def sample(self, batch_size: int, bounds: torch.Tensor) -> Draw:
        """As :meth:`Sampler.sample`."""
        uniform = self._uniform.sample(batch_size, bounds)
        shares, coins = torch.rand(
            (2, batch_size), dtype=torch.float64, generator=self.generator, device=bounds.device
        )
        found = self._tree.find(shares)
        by_chance = (coins < self.options.uniform_share) | (self._tree.numbers(found) == 0)
        newest = bounds[0] - 1
        times = newest - (newest - found // self._n_envs) % self._capacity
        times = torch.where(by_chance, uniform.times, times)
        envs = torch.where(by_chance, uniform.envs, found % self._n_envs)
        transitions = (bounds[0] - bounds[1:]).sum()
        weights = (self.probabilities(times, envs, bounds) * transitions) ** -self._beta
        return Draw(times, envs, (weights / weights.amax()).float())

    def probabilities(
        self, times: torch.Tensor, envs: torch.Tensor, bounds: torch.Tensor
    ) -> torch.Tensor:
        """Of being drawn, float64 (batch,), for transitions of times and environments."""
        total = self._tree.total()
        # All priorities may be 0.
        share = (total == 0).double().clamp_(min=self.options.uniform_share)
        numbers = self._tree.numbers(self._places(times, envs))
        uniform = share / (bounds[0] - bounds[1:]).sum()
        return (1 - share) * numbers / total.clamp(min=1e-300) + uniform

    def add(self, before: torch.Tensor, after: torch.Tensor) -> None:
        """As :meth:`Sampler.add`: the largest priority so far, removed ones become 0."""
        newest = after[0] - 1
        old = before[1:] + self._ages
        # The rest of what is lost has the place of the new transition.
        lost = (old < after[1:]) & (old > newest - self._capacity)
        removed = torch.where(lost, self._places(old, self._envs), self._tree.size)
        places = torch.cat([removed.flatten(), self._places(newest, self._envs)])
        numbers = self._largest.repeat(len(places))
        numbers[: removed.numel()] = 0
        self._tree.set(places, numbers)

    def restrict(self, bounds: torch.Tensor) -> None:
        """As :meth:`Sampler.restrict`."""
        newest = bounds[0] - 1
        rows = torch.arange(self._capacity, device=bounds.device)[:, None]
        times = newest - (newest - rows) % self._capacity
        self._tree.leaves.view(self._capacity, -1).masked_fill_(times < bounds[1:], 0)
        self._tree.rebuild()

    def set_priorities(
        self, places: torch.Tensor, priorities: torch.Tensor, bounds: torch.Tensor
    ) -> None:
        """As :meth:`Sampler.set_priorities`."""
        # A loss that is not finite stops the training later, and in one line.
        finite = priorities.nan_to_num().double()
        numbers = (finite + self.options.epsilon) ** self.options.alpha
        self._largest.copy_(torch.maximum(self._largest, numbers.amax()))
        held = places // self._n_envs >= bounds[1:][places % self._n_envs]
        places = torch.where(held, places % self._tree.size, self._tree.size)
        self._tree.set(places, numbers * held)

    def anneal(self, progress: float) -> None:
        """As :meth:`Sampler.anneal`: sets beta."""
        initial, final = self.options.beta_initial, self.options.beta_final
        self._beta.fill_(initial + (final - initial) * progress)

    def state(self, rows: int) -> dict[str, torch.Tensor]:
        """As :meth:`Sampler.state`; priorities are to the power of alpha."""
        leaves = self._tree.leaves[: rows * self._n_envs]
        return {
            "priorities": leaves.view(rows, self._n_envs),
            "priority_sums": self._tree.sums,
            "largest_priority": self._largest,
            "priority_exponent": torch.tensor(self.options.alpha, dtype=torch.float64),
        }

    def load_state(self, state: Mapping[str, torch.Tensor], bounds: torch.Tensor) -> None:
        """As :meth:`Sampler.load_state`; converts the state of a sampler with another alpha.

        From an empty state, as of a uniform sampler, all transitions have the largest priority.
        """
        leaves, alpha = self._tree.leaves, self.options.alpha
        if not state:
            leaves.copy_(self._largest.fill_(1))
            self.restrict(bounds)
            return
        priorities = state["priorities"].flatten()
        leaves.zero_()[: len(priorities)] = priorities
        self._tree.sums.copy_(state["priority_sums"])
        self._largest.copy_(state["largest_priority"])
        if (saved := state["priority_exponent"].item()) != alpha:
            # With an exponent of 0 all were 1.
            for numbers in (leaves, self._largest):
                numbers.pow_(alpha / (saved or 1))
            self.restrict(bounds)

    def check_valid(self, bounds: torch.Tensor) -> None:
        """As :meth:`Sampler.check_valid`."""
        held = self._tree.leaves.clone()
        sums = self._tree.sums.clone()
        self.restrict(bounds)
        assert torch.equal(held, self._tree.leaves), "a forgotten transition has a priority"
        torch.testing.assert_close(sums, self._tree.sums, rtol=1e-12, atol=0)
        self._tree.sums.copy_(sums)
        assert (held >= 0).all()
        assert held.isfinite().all()
        assert held.max() <= self._largest

    def _places(self, times: torch.Tensor, envs: torch.Tensor) -> torch.Tensor:
        return times % self._capacity * self._n_envs + envs
