"""How good a classifier or an encoder is: metrics, baselines, gains, probes, error plots."""

from rlcnn.supervised.evaluation.metrics import Evaluation, confusion_matrix, topk_accuracy

__all__ = ["Evaluation", "confusion_matrix", "topk_accuracy"]
