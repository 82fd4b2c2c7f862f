"""Evaluation of classifiers and encoders: metrics, baselines, gains, probes and error plots."""

from rlcnn.supervised.evaluation.assessment import Assessment, assess
from rlcnn.supervised.evaluation.metrics import Evaluation, topk_accuracy
from rlcnn.supervised.evaluation.networks import Network, load_network

__all__ = ["Assessment", "Evaluation", "Network", "assess", "load_network", "topk_accuracy"]
