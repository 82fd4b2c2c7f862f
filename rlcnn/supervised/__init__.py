"""Pretraining of encoders on labelled images: configuration, classifier, trainer, and run."""

from rlcnn.supervised.classifier import Classifier, load_classifier, save_classifier

__all__ = ["Classifier", "load_classifier", "save_classifier"]
