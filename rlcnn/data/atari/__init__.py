"""Labelled frames of Atari games: the emulator plays, and its RAM gives the labels."""

from rlcnn.data.atari.options import FrameOptions

__all__ = ["FrameOptions"]
