"""Random shifts and intensities of observations: DrQ's augmentation."""

from __future__ import annotations

from typing import NamedTuple

import torch

PAD = 4
INTENSITY = 0.05


class DrqNumbers(NamedTuple):
    """Random numbers of :func:`apply_drq` for a batch of images.

    Attributes:
        offsets: int64 (2, batch, 1), -4 to 4: first row and column of each crop.
        factors: float32 (batch, 1, 1, 1), 0.9 to 1.1: factor of each image's pixels.
    """

    offsets: torch.Tensor
    factors: torch.Tensor


def drq(images: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
    """Random shifts and intensities (Kostrikov et al. 2021, "Image Augmentation Is All You Need").

    Each image is padded by 4 pixels, which repeat its edge, and cropped at a random offset, the
    same for all frames of its stack. It is then multiplied by ``1 + 0.05 * clip(N(0, 1), -2, 2)``,
    without a limit to 255, as in SPR (mila-iqia/spr, ``src/models.py``). There and here an
    observation and the next one are augmented by independent draws.

    Args:
        images: uint8 (batch, channels, height, width).
        generator: of the images' device.

    Returns:
        float32 of the same shape, from 0 to 280.5.
    """
    return apply_drq(images, draw_drq(len(images), generator, images.device))


def draw_drq(
    count: int, generator: torch.Generator | None = None, device: torch.device | None = None
) -> DrqNumbers:
    """Draws for ``count`` images; ``generator`` is of ``device``, by default the CPU."""
    offsets = torch.randint(2 * PAD + 1, (2, count, 1), generator=generator, device=device) - PAD
    noise = torch.randn((count, 1, 1, 1), generator=generator, device=device)
    return DrqNumbers(offsets, 1 + INTENSITY * noise.clamp_(-2, 2))


def apply_drq(images: torch.Tensor, numbers: DrqNumbers) -> torch.Tensor:
    """Shifts and scales images as :func:`drq` does, by numbers on their device."""
    height, width = images.shape[2:]
    rows, columns = (
        (torch.arange(side, device=images.device) + offsets).clamp_(0, side - 1)
        for side, offsets in zip((height, width), numbers.offsets, strict=True)
    )
    shifted = images.gather(2, rows[:, None, :, None].expand_as(images))
    shifted = shifted.gather(3, columns[:, None, None].expand_as(images))
    return shifted * numbers.factors
