"""A network's copy for inference, whose weights are cast once rather than at every call."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import nn

from agents.networks.policies import PixelActorCriticPolicy, PixelQNetwork
from rlcnn.accelerate.cuda_graphs import parameters_and_buffers
from rlcnn.encoders.blocks import cache_kernels

Network = TypeVar("Network", PixelActorCriticPolicy, PixelQNetwork)

# Layers whose weights autocast casts to bfloat16 exactly as they are.
_CAST = (nn.Conv2d, nn.Linear)


class InferenceCopy(Generic[Network]):
    """Computes what a network computes, to the bit, without casting its weights at every call.

    Under autocast an encoder's weights are cast to bfloat16 at each call, which for the few
    observations of one step takes about as long as the rest. The copy casts them once, in
    :meth:`sync`, and prepares the first layer's kernel there, too.

    Attributes:
        source: the network that learns.
        network: the one to call, in evaluation mode and without gradients. A source with precision
            "fp32", which casts nothing, is its own copy, unless ``apart`` says that the copy is
            called while the source learns.
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
                # No subclasses: some compute with their weights before autocast casts them.
                if type(layer) in _CAST:
                    layer.to(torch.bfloat16)

    @torch.no_grad()
    def sync(self) -> None:
        """Copies the source's parameters and buffers."""
        if self.network is self.source:
            return
        copies, sources = parameters_and_buffers(self.network), parameters_and_buffers(self.source)
        pairs = list(zip(copies, sources, strict=True))
        # torch._foreach_copy_ is wrong for mixed dtypes on CUDA in some releases.
        alike = [pair for pair in pairs if pair[0].dtype == pair[1].dtype]
        torch._foreach_copy_([copied for copied, _ in alike], [source for _, source in alike])
        for copied, source in pairs:
            if copied.dtype != source.dtype:
                copied.copy_(source)
        low = self.source.precision == "bf16"
        cache_kernels(self.network, torch.bfloat16 if low else torch.float32)
