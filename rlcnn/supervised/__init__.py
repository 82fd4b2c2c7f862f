"""Pretraining of encoders on labelled images: configuration, classifier, trainer, and run."""
