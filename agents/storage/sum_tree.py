"""Numbers with their sums, to draw places in proportion to their numbers."""

from __future__ import annotations

import torch

# Few levels of many children: operations cost more than additions.
_CHILDREN = 128
_TOP = 16_384


class SumTree:
    """Numbers from 0, and above them sums of 128 of them each, in levels up to at most 16,384 sums.

    All is one float64 tensor: float32 could not tell a million places apart. Methods take whole
    batches, and loop over levels only; they never wait for the device, and their shapes are fixed,
    so that a CUDA graph can contain them.

    Attributes:
        size: how many numbers there are; also the place of another number, which is always 0.
        leaves: the numbers, float64 (size,).
        sums: all sums, float64.
    """

    def __init__(self, size: int, device: torch.device | str) -> None:
        counts = [_whole_rows(size + 1)]
        while not counts[1:] or counts[-1] > _TOP:
            counts.append(_whole_rows(counts[-1] // _CHILDREN))
        self.size = size
        self._nodes = torch.zeros(sum(counts), dtype=torch.float64, device=device)
        self.leaves, self.sums = self._nodes[:size], self._nodes[counts[0] :]
        # Each level's sums are those of the rows of the level before it.
        *levels, self._top = self._nodes.split(counts)
        self._levels = [level.view(-1, _CHILDREN) for level in levels]
        self._above = [*levels[1:], self._top]

    def numbers(self, places: torch.Tensor) -> torch.Tensor:
        """The numbers, float64 (batch,), at places int64 (batch,)."""
        return self._nodes.index_select(0, places)

    def total(self) -> torch.Tensor:
        """The sum of all numbers, float64 scalar."""
        return self._top.sum()

    def set(self, places: torch.Tensor, numbers: torch.Tensor) -> None:
        """Replaces numbers, float64 (batch,), at places int64 (batch,).

        If a place comes more than once, the largest of its numbers counts.
        """
        self._nodes.index_fill_(0, places, 0).scatter_reduce_(0, places, numbers, "amax")
        for level, above in zip(self._levels, self._above, strict=True):
            places = places // _CHILDREN
            above.index_copy_(0, places, level.index_select(0, places).sum(1))

    def find(self, shares: torch.Tensor) -> torch.Tensor:
        """The place at which the sum of all numbers so far exceeds a share of the total.

        Shares are float64 (batch,) from 0 to below 1, places int64 (batch,). Once in some 10**12
        shares, rounding finds a place whose number is 0, but never one above ``size``; so does
        every share if all numbers are 0.
        """
        sums = self._top.cumsum(0)
        rest = shares * sums[-1]
        places = torch.searchsorted(sums, rest, right=True).clamp_(max=len(sums) - 1)
        rest = rest - sums.index_select(0, places) + self._top.index_select(0, places)
        rest = rest[:, None]
        for level in reversed(self._levels):
            # Rounding may have led to a row of zeros or beyond the last.
            numbers = level.index_select(0, places.clamp_(max=len(level) - 1))
            sums = numbers.cumsum(1)
            within = torch.searchsorted(sums, rest, right=True).clamp_(max=_CHILDREN - 1)
            rest = rest - sums.gather(1, within) + numbers.gather(1, within)
            places = places * _CHILDREN + within.squeeze(1)
        return places.clamp_(max=self.size)

    def rebuild(self) -> None:
        """Sums anew, after :attr:`leaves` changed."""
        for level, above in zip(self._levels, self._above, strict=True):
            above[: len(level)] = level.sum(1)


def _whole_rows(count: int) -> int:
    return -(-count // _CHILDREN) * _CHILDREN
