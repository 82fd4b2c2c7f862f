"""Mean and variance of everything seen so far, by which values are normalised."""

from __future__ import annotations

import torch
from torch import nn

EPSILON = 1e-5  # added to the variance
LIMIT = 5.0  # in deviations; normalised values beyond it are cut off


class RunningMoments(nn.Module):
    """The mean and variance of values of ``shape``, merged from batches.

    Batches are merged as in Chan et al. 1979, "Updating formulae and a pairwise algorithm for
    computing sample variances". The start, mean 0 and variance 1, counts as one value, as in
    rl_games (``rl_games/algos_torch/running_mean_std.py``), whose epsilon and limit these are.

    The moments are buffers in float64, changed in place: copies, checkpoints and captured graphs
    contain them.
    """

    mean: torch.Tensor
    variance: torch.Tensor
    count: torch.Tensor

    def __init__(self, shape: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("variance", torch.ones(shape, dtype=torch.float64))
        self.register_buffer("count", torch.ones((), dtype=torch.float64))

    @property
    def deviation(self) -> torch.Tensor:
        """The square root of the variance and epsilon, float64 of ``shape``."""
        return (self.variance + EPSILON).sqrt()

    @torch.no_grad()
    def merge(self, mean: torch.Tensor, variance: torch.Tensor, count: int) -> None:
        """Takes in a batch of ``count`` values with this mean and population variance."""
        total = self.count + count
        change = mean - self.mean
        spread = change.square() * (self.count * count / total)
        squares = self.variance * self.count + variance * count + spread
        self.mean.add_(change * (count / total))
        self.variance.copy_(squares / total)
        self.count.copy_(total)

    def normalise(self, values: torch.Tensor) -> torch.Tensor:
        """Values (..., *shape) in deviations from the mean, in their own dtype."""
        return (values - self.mean.to(values.dtype)) / self.deviation.to(values.dtype)

    def restore(self, normalised: torch.Tensor) -> torch.Tensor:
        """The inverse of :meth:`normalise`."""
        dtype = normalised.dtype
        return normalised * self.deviation.to(dtype) + self.mean.to(dtype)
