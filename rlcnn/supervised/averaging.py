"""Moving average of a network's weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import nn

_MODULE, _UPDATES = "module.", "n_averaged"


class WeightAverage:
    """An exponential moving average of a network's parameters and running statistics.

    The first update copies the network. Integers, such as BatchNorm's counter of batches, are
    always copied.

    The result equals ``torch.optim.swa_utils.AveragedModel`` with ``get_ema_multi_avg_fn``, which
    copies a counter to the device at every update and so makes the host wait for a GPU.

    Attributes:
        module: the average, a network of the same class.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        """Starts with a copy of a network whose tensors are updated in place.

        ``decay``, 0 to 1, is the weight of the old average at an update.
        """
        self.module = copy.deepcopy(network)
        self._weight = 1 - decay
        self._updates = 0
        average, current = (_by_kind(module) for module in (self.module, network))
        self._floats = average[True], current[True]
        self._others = average[False], current[False]

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

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The state with the names of ``AveragedModel``."""
        tensors = {_MODULE + name: value for name, value in self.module.state_dict().items()}
        return {_UPDATES: torch.tensor(self._updates), **tensors}

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Loads a result of :meth:`state_dict` from any device."""
        tensors = {
            name.removeprefix(_MODULE): value for name, value in state.items() if name != _UPDATES
        }
        self.module.load_state_dict(tensors)
        self._updates = int(state[_UPDATES])


def _by_kind(module: nn.Module) -> dict[bool, list[torch.Tensor]]:
    """Parameters and buffers: floating point ones at True, others at False."""
    tensors = [*module.parameters(), *module.buffers()]
    return {kind: [t for t in tensors if t.is_floating_point() == kind] for kind in (True, False)}
