"""Options of augmentation, apart from :mod:`rlcnn.data.augment`: ``--help`` needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Interval

from rlcnn.config.fields import MAX_SIDE

_Pixels = Annotated[int, Interval(ge=0, le=MAX_SIDE)]
_Scale = Annotated[float, Interval(ge=0.1, le=10)]


@dataclass(frozen=True)
class AugmentConfig:
    """How images are resized, and how training images are changed at random."""

    resize: _Pixels = 0
    """Shorter side in pixels that every image is first resized to; 0 keeps images of one size, and
    resizes others to 8/7 of --augment.crop."""
    pad: _Pixels = 0
    """Rows and columns of zeros put around every image."""
    crop: _Pixels = 0
    """Side of the square crop: at a random place for training, the centre for held-out images; 0
    takes the whole image."""
    crop_padding: _Pixels = 0
    """Pixels by which a crop may lie outside the image; --augment.edge fills them."""
    edge: Literal["mean", "reflect", "repeat"] = "mean"
    """What lies outside an image: mean, the mean colour of the training images; reflect, the mirror
    image; repeat, the outermost pixels."""
    flip: bool = False
    """Whether half of the training images are mirrored left to right."""
    scale_from: _Scale = 1.0
    """Scale jitter: least factor by which an image is resized before the crop."""
    scale_to: _Scale = 1.0
    """Scale jitter: greatest factor."""
    cutout: _Pixels = 0
    """Side of a square that is replaced by the mean colour (DeVries & Taylor 2017); 0 for none."""
    trivial: bool = False
    """Whether one random operation changes each image (TrivialAugment, Mueller & Hutter 2021)."""
