"""Pretraining of an encoder on labelled images: configuration, network, trainer, and run."""
