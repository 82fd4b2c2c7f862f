"""Convolutional encoders, their weights and supervised training; runs, options, statistics."""

import envs  # noqa: F401 - first, so that envs.machine.openmp comes before torch

__version__ = "0.1.0"
