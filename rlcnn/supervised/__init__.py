"""Pretraining of encoders on labelled images: configuration, classifier, trainer, and run."""

from typing import TYPE_CHECKING

from envs.lazy import import_at_first_use

if TYPE_CHECKING:
    from rlcnn.supervised.classifier import Classifier, load_classifier, save_classifier
else:
    __getattr__ = import_at_first_use(__name__)

__all__ = ["Classifier", "load_classifier", "save_classifier"]
