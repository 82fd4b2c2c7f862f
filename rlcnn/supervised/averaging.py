"""Moving average of a network's weights."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)


class WeightAverage(nn.Module, Generic[Network]):
    """An exponential moving average of a network's parameters and running statistics.

    The first update copies the network. Integers, such as BatchNorm's counter of batches, are
    always copied.

    The result and the names of the state equal those of ``torch.optim.swa_utils.AveragedModel``
    with ``get_ema_multi_avg_fn``, which copies a counter to the device at every update and so makes
    the host wait for a GPU.

    Attributes:
        module: the average, a network of the same class.
    """

    module: Network
    n_averaged: torch.Tensor

    def __init__(self, network: Network, decay: float) -> None:
        """Starts with a copy of a network whose tensors are updated in place.

        ``decay``, 0 to 1, is the weight of the old average at an update.
        """
        super().__init__()
        self.module = copy.deepcopy(network)
        self.register_buffer("n_averaged", torch.tensor(0))
        # The same memory, which the host reads without an operation of torch.
        self._updates = self.n_averaged.numpy()
        self._weight = 1 - decay
        # The averages, and the network's tensors beside them.
        self._floats: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])
        self._others: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])
        for side, model in enumerate((self.module, network)):
            for tensor in (*model.parameters(), *model.buffers()):
                kind = self._floats if tensor.is_floating_point() else self._others
                kind[side].append(tensor)

    @torch.no_grad()
    def update(self) -> None:
        """Moves the average towards the network."""
        if self._updates:
            torch._foreach_lerp_(*self._floats, self._weight)
        else:
            torch._foreach_copy_(*self._floats)
        if self._others[0]:
            torch._foreach_copy_(*self._others)
        self._updates += 1
