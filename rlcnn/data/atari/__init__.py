"""Labelled frames of Atari games: the emulator plays, and its RAM gives the labels.

``rlcnn.data.atari.dataset.play_frames`` makes them; it needs the emulator.
"""

from rlcnn.data.atari.options import FrameOptions, PolicyPlay

__all__ = ["FrameOptions", "PolicyPlay"]
