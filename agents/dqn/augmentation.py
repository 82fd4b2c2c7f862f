"""Augmentation of replayed observations."""

from __future__ import annotations

import torch

PAD = 4
INTENSITY = 0.05


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
    batch, _, height, width = images.shape
    device = images.device
    offsets = torch.randint(2 * PAD + 1, (2, batch, 1), generator=generator, device=device) - PAD
    rows = (torch.arange(height, device=device) + offsets[0]).clamp_(0, height - 1)
    columns = (torch.arange(width, device=device) + offsets[1]).clamp_(0, width - 1)
    shifted = images.gather(2, rows[:, None, :, None].expand_as(images))
    shifted = shifted.gather(3, columns[:, None, None].expand_as(images))
    noise = torch.randn((batch, 1, 1, 1), generator=generator, device=device)
    return shifted * (1 + INTENSITY * noise.clamp_(-2, 2))
