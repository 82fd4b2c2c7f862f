"""Weights in files: recognised, read, loaded into an encoder, and reported with their origin."""

from rlcnn.weights.load import load_encoder, load_into, read_spec, save_encoder
from rlcnn.weights.origin import Origin
from rlcnn.weights.report import LoadReport

__all__ = ["LoadReport", "Origin", "load_encoder", "load_into", "read_spec", "save_encoder"]
