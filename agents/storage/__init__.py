"""Rollout and replay storage: each frame is stored once, and stacks are rebuilt from frames."""

from agents.storage.codecs import FeatureCodec, FrameCodec, PixelCodec
from agents.storage.prioritized import Priorities, PrioritizedSampler
from agents.storage.replay import FrameReplay, ReplayBatch
from agents.storage.rollout import FrameRollout, RolloutBatch
from agents.storage.samplers import NStepReturns, Sampler, UniformSampler

__all__ = [
    "FeatureCodec",
    "FrameCodec",
    "FrameReplay",
    "FrameRollout",
    "NStepReturns",
    "PixelCodec",
    "Priorities",
    "PrioritizedSampler",
    "ReplayBatch",
    "RolloutBatch",
    "Sampler",
    "UniformSampler",
]
