"""A policy's copy that acts, its encoder's weights kept in the precision that it computes in."""

from __future__ import annotations

import copy

import torch
from torch import nn

from agents.policies import PixelActorCriticPolicy


class Actor:
    """Acts as a policy does, to the bit, without casting weights at every step.

    Under autocast an encoder's weights are cast to bfloat16 each time it is called, which for the
    few observations of one step takes about as long as all that is done with them. The copy that
    acts here was cast once, when :meth:`follow` was called last.

    Attributes:
        policy: what to act by, in evaluation mode and without gradients.

    Args:
        source: the policy that learns; with precision "fp32" it acts itself.
    """

    def __init__(self, source: PixelActorCriticPolicy) -> None:
        self.source = self.policy = source
        if source.precision == "bf16":
            # Without the optimiser, whose moments are twice as large as the policy.
            self.policy = copy.deepcopy(source, {id(source.optimizer): None})
            self.policy.set_training_mode(False)
            for layer in self.policy.features_extractor.modules():
                # Those that autocast runs in bfloat16.
                if isinstance(layer, (nn.Conv2d, nn.Linear)):
                    layer.to(torch.bfloat16)

    def follow(self) -> None:
        """Takes over what the source has learned."""
        if self.policy is not self.source:
            own = [*self.policy.parameters(), *self.policy.buffers()]
            learned = [*self.source.parameters(), *self.source.buffers()]
            with torch.no_grad():
                torch._foreach_copy_(own, learned)
