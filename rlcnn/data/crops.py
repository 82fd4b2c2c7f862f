"""Crops of an image for evaluation: the centre, or ten crops whose predictions are averaged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F

from envs.errors import UserError
from rlcnn.data.augment import RESIZE_BY_CROP


@dataclass(frozen=True)
class CropTransform:
    """Turns an image of any size into a network's input.

    Attributes:
        height: height of the network's input in pixels.
        width: its width.
        resize: shorter side that images are first resized to; 0 keeps their size. None keeps
            images of the network's own size and resizes others to 8/7 of it.
        pad: rows and columns of zeros that are then put around the image.
        interpolation: torchvision's name of the interpolation; it is antialiased.

    Raises:
        UserError: the resized images are smaller than the crop.
    """

    height: int
    width: int
    resize: int | None = None
    pad: int = 0
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        least = min(self.height, self.width)
        if self.resize and self.resize + 2 * self.pad < least:
            raise UserError(
                f"images of {self.resize} pixels hold no crop of {least}: a greater --resize or a"
                " smaller --size does"
            )

    def centre(self, image: torch.Tensor) -> torch.Tensor:
        """The centre crop, uint8 (channels, h, w) -> (1, channels, height, width)."""
        from torchvision.transforms import functional

        if self.resize is None and image.shape[1:] == (self.height, self.width):
            return image[None]
        return functional.center_crop(self._resized(image), [self.height, self.width])[None]

    def ten(self, image: torch.Tensor) -> torch.Tensor:
        """Ten crops (Krizhevsky et al. 2012, section 4.1): uint8 (10, channels, height, width).

        The image is resized to a shorter side of ``resize`` (256 in the paper), and its central
        square is kept. The crops are the four corners and the centre of it, and their mirror
        images.

        Raises:
            UserError: the square is not larger than a crop, so all crops would be equal.
        """
        from torchvision.transforms import functional

        if self.resize:
            square = [self.resize + 2 * self.pad] * 2
            resized = self._resized(image)
        else:
            square = [round(side * RESIZE_BY_CROP) for side in (self.height, self.width)]
            resized = self._covering(image, square)
        if square[0] <= self.height or square[1] <= self.width:
            raise UserError(
                f"ten crops of {self.height}x{self.width} pixels need a larger image than"
                f" {square[0]}x{square[1]}: give --resize"
            )
        middle = functional.center_crop(resized, square)
        return torch.stack(functional.ten_crop(middle, [self.height, self.width]))

    def crops(self, image: torch.Tensor, count: int) -> torch.Tensor:
        """:meth:`centre` for 1 crop, :meth:`ten` for 10: uint8 (count, channels, height, width).

        Raises:
            UserError: any other number.
        """
        if count not in (1, 10):
            raise UserError(f"--crops {count} must be 1 or 10")
        return self.centre(image) if count == 1 else self.ten(image)

    def _resized(self, image: torch.Tensor) -> torch.Tensor:
        if self.resize is None:
            sides = [round(side * RESIZE_BY_CROP) for side in (self.height, self.width)]
            image = self._covering(image, sides)
        elif self.resize:
            image = self._resize(image, [self.resize])
        return F.pad(image, [self.pad] * 4) if self.pad else image

    def _covering(self, image: torch.Tensor, size: list[int]) -> torch.Tensor:
        """The image resized to the smallest size that covers ``size``."""
        height, width = image.shape[1:]
        factor = max(size[0] / height, size[1] / width)
        whole = [max(size[0], round(height * factor)), max(size[1], round(width * factor))]
        return self._resize(image, whole)

    def _resize(self, image: torch.Tensor, size: list[int]) -> torch.Tensor:
        from torchvision.transforms import InterpolationMode, functional

        mode: Any = InterpolationMode(self.interpolation)
        return functional.resize(image, size, mode, antialias=True)
