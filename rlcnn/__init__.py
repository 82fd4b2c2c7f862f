"""Eyes: convolutional encoders, their weights, run directories and tracking."""

import envs  # noqa: F401 - first, so that envs.machine.openmp comes before torch

__version__ = "0.1.0"
