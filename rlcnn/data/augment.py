"""Images brought to size, and changed anew each time they are learned from.

What can be done to a whole batch of uint8 images at once is done so, on the device they lie on;
TrivialAugment and scale jitter, which differ in kind or size from image to image, are torchvision's
(``transforms.v2``), one image at a time. What is drawn follows from a seed alone, so that a
training resumed in the middle of an epoch sees what it would have seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn import functional as F

from envs.errors import UserError
from rlcnn.data.images import ImageFiles, LabelledImages, StoredImages

# Of ImageNet's usual preparation: a crop of 224 out of images whose shorter side is 256.
_RESIZE_BY_CROP = 8 / 7

# The columns of what is drawn for each image.
_DRAWN = _TOP, _LEFT, _MIRRORED, _HOLE_TOP, _HOLE_LEFT = range(5)

# So many images tell the mean colour well enough.
_MEAN_OF = 2000


@dataclass(frozen=True)
class AugmentConfig:
    """How images are changed each time they are learned from, and how all are brought to size."""

    resize: int = 0
    """Shorter side, in pixels, that every image is first brought to; 0 leaves images of one size as
    they are, and others at 8/7 of --augment.crop."""
    pad: int = 0
    """Rows and columns of zeros put around every image."""
    crop: int = 0
    """Side of the square that is learned from: anywhere in the image, the middle when held out; 0
    takes the whole image."""
    crop_padding: int = 0
    """Pixels by which a crop may lie outside the image; --augment.edge says what it finds there."""
    edge: Literal["mean", "reflect", "repeat"] = "mean"
    """What lies outside an image: the mean colour of those learned from, its mirror image, or its
    outermost pixels."""
    flip: bool = False
    """Whether half of the images are mirrored left to right."""
    scale_from: float = 1.0
    """Scale jitter: the least factor by which an image is resized before it is cropped."""
    scale_to: float = 1.0
    """Scale jitter: the greatest factor."""
    cutout: int = 0
    """Side of a square that is replaced by the mean colour (DeVries & Taylor 2017); 0 for none."""
    trivial: bool = False
    """Whether each image is changed by one random operation (TrivialAugment, Mueller & Hutter
    2021)."""


def bring_to_size(images: LabelledImages, config: AugmentConfig) -> LabelledImages:
    """Images resized and padded as ``config`` says, before anything random.

    Raises:
        UserError: they differ in size and no crop is given.
    """
    if isinstance(images, ImageFiles):
        if not config.crop:
            raise UserError(
                "the images differ in size: give the side to learn from, --augment.crop"
            )
        resize = config.resize or round(config.crop * _RESIZE_BY_CROP)
        return ImageFiles(
            images.paths, images.labels, images.tasks, channels=images.channels, resize=resize
        )
    if not (config.resize or config.pad):
        return images
    if not isinstance(images, StoredImages):
        raise UserError(
            "--augment.resize and --augment.pad are for images: the size of a game's frames is"
            " --frames.obs-size"
        )
    pixels = images.images
    if config.resize:
        height, width = pixels.shape[2:]
        factor = config.resize / min(height, width)
        size = (round(height * factor), round(width * factor))
        pixels = _resized(pixels, size)
    return StoredImages(F.pad(pixels, [config.pad] * 4), images.labels, images.tasks)


class Augmentation:
    """What is done to images of one training, learned from or held out.

    Attributes:
        output_shape: (channels, height, width) of what comes out.
        batched: whether whole batches are augmented at once.
    """

    def __init__(self, config: AugmentConfig, train: LabelledImages) -> None:
        """Looks at the images for their mean colour.

        Args:
            config: what to do.
            train: images to learn from, brought to size.

        Raises:
            UserError: the images are too small for the crop, or have channels that the operations
                of ``trivial`` are not made for.
        """
        self.config = config
        if config.trivial and train.channels not in (1, 3):
            raise UserError(
                f"--augment.trivial is for images of 1 or 3 channels, not {train.channels}"
            )
        height, width = _size(train)
        least = min(height, width) + 2 * config.crop_padding
        if config.crop > least:
            raise UserError(
                f"--augment.crop {config.crop} is larger than the images: {height}x{width} pixels,"
                f" with --augment.crop-padding {config.crop_padding} on each side"
            )
        crop = (config.crop, config.crop) if config.crop else (height, width)
        self.output_shape = (train.channels, *crop)
        self.batched = not config.trivial and config.scale_from == config.scale_to == 1
        self._mean = _mean_colour(train)
        self._means: dict[torch.device, torch.Tensor] = {}

    def draw(self, count: int, size: tuple[int, int], random: torch.Generator) -> torch.Tensor:
        """Draws what changes images at random, for :meth:`apply`.

        Args:
            count: number of images.
            size: their height and width.
            random: a generator of the CPU.

        Returns:
            int64 (count, 5) on the CPU: where each crop begins (row and column, negative outside
            the image), whether it is mirrored, and where its hole begins (row and column).
        """
        drawn = torch.zeros(count, len(_DRAWN), dtype=torch.int64)
        height, width = self.output_shape[1:]
        if self._crops(size):
            padding = self.config.crop_padding
            drawn[:, _TOP] = _offsets(size[0], height, padding, count, random)
            drawn[:, _LEFT] = _offsets(size[1], width, padding, count, random)
            if self.config.flip:
                drawn[:, _MIRRORED] = torch.rand(count, generator=random) < 0.5
        if side := self.config.cutout:
            # Its middle lies anywhere in the image, its edges perhaps beyond it.
            for column, length in ((_HOLE_TOP, height), (_HOLE_LEFT, width)):
                middle = torch.randint(length, (count,), generator=random)
                drawn[:, column] = middle - side // 2
        return drawn

    def apply(self, images: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        """Crops, mirrors and cuts out, where nothing is done one by one (``batched``).

        Args:
            images: uint8 (batch, channels, height, width) on any device.
            drawn: what :meth:`draw` returned, on the same device.

        Returns:
            uint8 (batch, *output_shape) on the same device.
        """
        return self._cut_out(self._cropped(images, drawn), drawn)

    def image(self, image: torch.Tensor, seed: int) -> torch.Tensor:
        """Augments one image, of any size, as the seed says.

        Args:
            image: uint8 (channels, height, width) on the CPU.
            seed: of this image, this time.

        Returns:
            uint8 ``output_shape``.
        """
        random = torch.Generator().manual_seed(seed)
        config = self.config
        if config.scale_to > config.scale_from or config.scale_from != 1:
            span = config.scale_to - config.scale_from
            factor = config.scale_from + span * float(torch.rand((), generator=random))
            height, width = image.shape[1:]
            image = _resized(image, (max(1, round(height * factor)), max(1, round(width * factor))))
        height, width = image.shape[1:]
        drawn = self.draw(1, (height, width), random)
        images = self._cropped(image[None], drawn)
        if config.trivial:
            images = _trivially_augmented(images[0], seed)[None]
        return self._cut_out(images, drawn)[0]

    def held_out(self, images: torch.Tensor) -> torch.Tensor:
        """The middle of images: uint8 (..., height, width) -> (..., height', width')."""
        height, width = self.output_shape[1:]
        top, left = (images.shape[-2] - height) // 2, (images.shape[-1] - width) // 2
        if (top, left) == (0, 0):
            return images[..., :height, :width]
        if min(top, left) < 0:
            images = F.pad(images, [max(0, -left)] * 2 + [max(0, -top)] * 2)
            return self.held_out(images[..., max(0, top) :, max(0, left) :])
        return images[..., top : top + height, left : left + width]

    def _crops(self, size: tuple[int, int]) -> bool:
        """Whether images of that height and width are cropped or mirrored."""
        moves = size != self.output_shape[1:] or self.config.crop_padding > 0
        return moves or self.config.flip

    def _cropped(self, images: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        """Crops of random place, half of them mirrored: one look-up of every pixel."""
        count, _, height, width = images.shape
        if not self._crops((height, width)):
            return images
        device = images.device
        out_height, out_width = self.output_shape[1:]
        rows = drawn[:, _TOP, None] + torch.arange(out_height, device=device)
        columns = drawn[:, _LEFT, None] + torch.arange(out_width, device=device)
        if self.config.flip:
            mirrored = drawn[:, _MIRRORED, None] > 0
            columns = torch.where(mirrored, columns.flip(1), columns)
        row, column = self._inside(rows, height), self._inside(columns, width)
        index = torch.arange(count, device=device)[:, None, None]
        # The channels of a place come along, and so end last.
        crops = images[index, :, row[:, :, None], column[:, None, :]].permute(0, 3, 1, 2)
        if self.config.edge == "mean":
            outside = ((row != rows)[:, :, None] | (column != columns)[:, None, :])[:, None]
            return torch.where(outside, self._mean_on(device), crops)
        return crops.contiguous()

    def _inside(self, places: torch.Tensor, length: int) -> torch.Tensor:
        """The places in an image that stand for those outside it."""
        if self.config.edge == "reflect" and length > 1:
            around = places.remainder(2 * (length - 1))
            return torch.minimum(around, 2 * (length - 1) - around)
        return places.clamp(0, length - 1)

    def _cut_out(self, images: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        side = self.config.cutout
        if not side:
            return images
        inside = []
        for column, length in zip((_HOLE_TOP, _HOLE_LEFT), images.shape[2:], strict=True):
            first = drawn[:, column, None]
            places = torch.arange(length, device=images.device)
            inside.append((places >= first) & (places < first + side))
        hole = (inside[0][:, :, None] & inside[1][:, None, :])[:, None]
        return torch.where(hole, self._mean_on(images.device), images)

    def _mean_on(self, device: torch.device) -> torch.Tensor:
        """The mean colour on a device, copied there once."""
        if device not in self._means:
            self._means[device] = self._mean.to(device)
        return self._means[device]


def _offsets(
    length: int, out: int, padding: int, count: int, random: torch.Generator
) -> torch.Tensor:
    """Where crops begin, int64 (count,); negative outside the image."""
    least, most = -padding, length - out + padding
    if most < least:
        # A jittered image may be smaller than the crop: then it lies anywhere within.
        least, most = most, least
    return torch.randint(least, most + 1, (count,), generator=random)


def _trivially_augmented(image: torch.Tensor, seed: int) -> torch.Tensor:
    from torchvision.transforms import v2

    # torchvision draws from torch's generator of the CPU, which the network's dropout shares.
    # torch.manual_seed would seed those of GPUs as well, which are not put back.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        changed: torch.Tensor = v2.TrivialAugmentWide()(image)
    return changed


def _resized(images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    from torchvision.transforms.v2 import functional

    return functional.resize(images, list(size), antialias=True)


def _size(images: LabelledImages) -> tuple[int, int]:
    """Height and width of images; the least that there can be, where they differ."""
    if images.image_shape is not None:
        return images.image_shape[1], images.image_shape[2]
    assert isinstance(images, ImageFiles)
    return images.resize, images.resize


def _mean_colour(images: LabelledImages) -> torch.Tensor:
    """The mean of each channel over some of the images, uint8 (channels, 1, 1)."""
    # Files are decoded for this alone: fewer of them.
    some = _MEAN_OF if images.image_shape else _MEAN_OF // 10
    step = max(1, len(images) // some)
    means = [images[i].double().mean(dim=(1, 2)) for i in range(0, len(images), step)]
    return torch.stack(means).mean(dim=0).round().to(torch.uint8)[:, None, None]
