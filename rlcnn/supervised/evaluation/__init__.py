"""Evaluation of classifiers and encoders: metrics, baselines, gains, probes and error plots."""

from typing import TYPE_CHECKING

from envs.lazy import import_at_first_use

if TYPE_CHECKING:
    from rlcnn.supervised.evaluation.assessment import Assessment, assess
    from rlcnn.supervised.evaluation.metrics import Evaluation, topk_accuracy
    from rlcnn.supervised.evaluation.networks import Network, load_network
else:
    __getattr__ = import_at_first_use(__name__)

__all__ = ["Assessment", "Evaluation", "Network", "assess", "load_network", "topk_accuracy"]
