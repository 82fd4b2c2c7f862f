"""Steps environments into storage: actors, and a collector for rollouts and one for a replay."""

from agents.collect.actor import CudaRolloutActor, RolloutActor, make_actor
from agents.collect.inference_copy import InferenceCopy
from agents.collect.off_policy import collect_steps
from agents.collect.on_policy import OnPolicyCollector

__all__ = [
    "CudaRolloutActor",
    "InferenceCopy",
    "OnPolicyCollector",
    "RolloutActor",
    "collect_steps",
    "make_actor",
]
