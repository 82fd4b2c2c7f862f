"""What rate the parts of training permit together."""

from __future__ import annotations


def serial_rate(environment: float, inference: float, update: float, samples: float) -> float:
    """Steps per second where one resource does everything in turn, as the cores of a CPU do.

    Args:
        environment: steps per second of the environments alone.
        inference: observations per second that the policy alone acts on.
        update: samples per second that the update alone learns from.
        samples: that are learned from for each step.
    """
    return 1 / (1 / environment + 1 / inference + samples / update)


def overlapped_rate(environment: float, inference: float, update: float, samples: float) -> float:
    """Steps per second where the CPU plays while the GPU computes: those of the slower of the two.

    Inference and update share the GPU, so their times add up. Arguments as :func:`serial_rate`.
    """
    return min(environment, 1 / (1 / inference + samples / update))
