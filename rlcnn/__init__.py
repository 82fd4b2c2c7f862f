"""Eyes: convolutional encoders, their weights, run directories and tracking."""

__version__ = "0.1.0"
