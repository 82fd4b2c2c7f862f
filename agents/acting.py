"""A network's copy for inference, its weights kept in the precision that it computes in."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import nn

from agents.policies import PixelActorCriticPolicy, PixelQNetwork

Network = TypeVar("Network", PixelActorCriticPolicy, PixelQNetwork)


class InferenceCopy(Generic[Network]):
    """Computes what a network does, to the bit, without casting its weights every time.

    Under autocast an encoder's weights are cast to bfloat16 each time it is called, which for the
    few observations of one step takes about as long as all that is done with them. The copy's were
    cast once, when :meth:`follow` was called last.

    Attributes:
        network: what to call, in evaluation mode and without gradients.

    Args:
        source: the network that learns.
        apart: whether the copy is called while the source learns. Otherwise a source with precision
            "fp32", which casts nothing, serves itself.
    """

    def __init__(self, source: Network, apart: bool = False) -> None:
        self.source: Network = source
        self.network: Network = source
        if source.precision == "bf16" or apart:
            # Without an optimiser, whose moments are twice as large as the parameters.
            left_out = {id(getattr(source, "optimizer", None)): None}
            self.network = copy.deepcopy(source, left_out)
            self.network.set_training_mode(False)
        if source.precision == "bf16":
            for layer in self.network.features_extractor.modules():
                # Those that autocast runs in bfloat16.
                if isinstance(layer, (nn.Conv2d, nn.Linear)):
                    layer.to(torch.bfloat16)

    def follow(self) -> None:
        """Takes over what the source has learned."""
        if self.network is not self.source:
            own = [*self.network.parameters(), *self.network.buffers()]
            learned = [*self.source.parameters(), *self.source.buffers()]
            with torch.no_grad():
                torch._foreach_copy_(own, learned)
