"""Weights in files: read, put into an encoder tensor by tensor, reported, traced to a source."""

from rlcnn.weights.load import load_encoder, load_into, read_spec, save_encoder
from rlcnn.weights.origin import Origin
from rlcnn.weights.report import LoadReport

__all__ = ["LoadReport", "Origin", "load_encoder", "load_into", "read_spec", "save_encoder"]
