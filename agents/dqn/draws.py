"""Random numbers that networks draw: noise of noisy layers, and levels of implicit quantiles."""

from __future__ import annotations

import numpy as np
import torch

from agents.storage.snapshot import restore_generator


class Draws:
    """A generator for each of the threads and graphs that may draw at the same time.

    All are None if ``random`` says that the networks draw nothing; ``device`` is theirs.
    """

    acting: torch.Generator | None
    targets: torch.Generator | None
    losses: torch.Generator | None

    def __init__(self, device: torch.device, random: bool) -> None:
        self._generators = [torch.Generator(device) for _ in range(3 * random)]
        self.acting, self.targets, self.losses = self._generators or (None, None, None)

    def seed(self, seed: np.random.SeedSequence) -> None:
        """Begins anew."""
        numbers = seed.generate_state(3)
        for generator, number in zip(
            self._generators, numbers[: len(self._generators)], strict=True
        ):
            generator.manual_seed(int(number))

    def state(self) -> list[list[int]]:
        """The states of the generators, as JSON values."""
        return [generator.get_state().tolist() for generator in self._generators]

    def restore(self, states: list[list[int]]) -> None:
        """Takes over what :meth:`state` returned; states of another kind of device become seeds."""
        for generator, state in zip(self._generators, states, strict=True):
            restore_generator(generator, torch.tensor(state, dtype=torch.uint8))
