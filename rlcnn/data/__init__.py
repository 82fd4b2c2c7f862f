"""Labelled images: loaded by name, from folders or published files, augmented, and batched.

Frames of Atari games, which need the emulator, are in :mod:`rlcnn.data.atari`.
"""

from typing import TYPE_CHECKING

from envs.lazy import import_at_first_use

if TYPE_CHECKING:
    from rlcnn.data.augment import Augmentation, bring_to_size
    from rlcnn.data.augment_options import AugmentConfig
    from rlcnn.data.batches import Batch, Batches
    from rlcnn.data.by_name import load_data
    from rlcnn.data.crops import CropTransform
    from rlcnn.data.folders import load_folder
    from rlcnn.data.images import (
        UNKNOWN,
        Episodes,
        ImageFiles,
        LabelledImages,
        Split,
        StoredImages,
        Task,
    )
else:
    __getattr__ = import_at_first_use(__name__)

__all__ = [
    "UNKNOWN",
    "AugmentConfig",
    "Augmentation",
    "Batch",
    "Batches",
    "CropTransform",
    "Episodes",
    "ImageFiles",
    "LabelledImages",
    "Split",
    "StoredImages",
    "Task",
    "bring_to_size",
    "load_data",
    "load_folder",
]
