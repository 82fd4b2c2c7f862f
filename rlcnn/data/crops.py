"""What a classifier sees of a photograph: its middle, or ten crops whose answers are averaged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F

from envs.errors import UserError

# A crop of 224 is taken out of images whose shorter side is 256, unless something else is known.
_RESIZE_BY_CROP = 8 / 7


@dataclass(frozen=True)
class CropTransform:
    """How an image of any size becomes what a network takes.

    Attributes:
        height: of the network's input, in pixels.
        width: likewise.
        resize: shorter side that images are first brought to, 0 to leave them as they are; None
            leaves those of the network's own size as they are and brings others to 8/7 of it.
        pad: rows and columns of zeros that are then put around them.
        interpolation: by which they are resized, with antialiasing, as torchvision names it.
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
        """The middle of an image, uint8 (channels, h, w) -> (1, channels, height, width)."""
        from torchvision.transforms import functional

        if self.resize is None and image.shape[1:] == (self.height, self.width):
            return image[None]
        return functional.center_crop(self._resized(image), [self.height, self.width])[None]

    def ten(self, image: torch.Tensor) -> torch.Tensor:
        """Ten crops of an image (Krizhevsky et al. 2012, section 4.1).

        Its shorter side is brought to ``resize`` (256 in the paper) and the middle square of that
        side is kept; of this the four corners and the centre are cut, then their mirror images.

        Args:
            image: uint8 (channels, h, w).

        Returns:
            uint8 (10, channels, height, width).

        Raises:
            UserError: the square is no larger than a crop, which would be cut ten times.
        """
        from torchvision.transforms import functional

        if self.resize:
            square = [self.resize + 2 * self.pad] * 2
            resized = self._resized(image)
        else:
            square = [round(side * _RESIZE_BY_CROP) for side in (self.height, self.width)]
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
            sides = [round(side * _RESIZE_BY_CROP) for side in (self.height, self.width)]
            image = self._covering(image, sides)
        elif self.resize:
            image = self._resize(image, [self.resize])
        return F.pad(image, [self.pad] * 4) if self.pad else image

    def _covering(self, image: torch.Tensor, size: list[int]) -> torch.Tensor:
        """The image, no larger than it takes to cover ``size``."""
        height, width = image.shape[1:]
        factor = max(size[0] / height, size[1] / width)
        whole = [max(size[0], round(height * factor)), max(size[1], round(width * factor))]
        return self._resize(image, whole)

    def _resize(self, image: torch.Tensor, size: list[int]) -> torch.Tensor:
        from torchvision.transforms import InterpolationMode, functional

        mode: Any = InterpolationMode(self.interpolation)
        return functional.resize(image, size, mode, antialias=True)
