"""Resizes images, and augments them at random each time they are used for training.

Whole batches of uint8 images are augmented at once, on their device. TrivialAugment and scale
jitter are torchvision's (``transforms.v2``), one image at a time. All random numbers follow from a
seed alone, so a training that is resumed in the middle of an epoch sees the same images.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from envs.errors import UserError
from rlcnn.data.augment_options import AugmentConfig
from rlcnn.data.images import ImageFiles, LabelledImages, StoredImages

RESIZE_BY_CROP = 8 / 7
"""ImageNet's usual preparation: a crop of 224 from images whose shorter side is 256."""

# Columns of the random numbers of an image.
_DRAWN = _TOP, _LEFT, _MIRRORED, _HOLE_TOP, _HOLE_LEFT = range(5)

# Number of images that the mean colour is estimated from.
_MEAN_OF = 2000


def bring_to_size(images: LabelledImages, config: AugmentConfig) -> LabelledImages:
    """Resizes and pads images by ``config``, before any random change.

    Raises:
        UserError: the images differ in size and no crop is given, or they are games' frames.
    """
    if isinstance(images, ImageFiles):
        if not config.crop:
            raise UserError("the images differ in size: give the side of a crop, --augment.crop")
        resize = config.resize or round(config.crop * RESIZE_BY_CROP)
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
        factor = config.resize / min(pixels.shape[2:])
        pixels = _resized(pixels, [round(side * factor) for side in pixels.shape[2:]])
    resized = StoredImages(F.pad(pixels, [config.pad] * 4), images.labels, images.tasks)
    resized.paths = images.paths
    return resized


class Augmentation:
    """Random changes of the training images, and the centre crop of held-out images.

    Attributes:
        output_shape: (channels, height, width) of the results.
        batched: whether whole batches are augmented at once.
    """

    def __init__(self, config: AugmentConfig, train: LabelledImages) -> None:
        """Computes the mean colour of the training images, resized by :func:`bring_to_size`.

        Raises:
            UserError: the images are too small for the crop, or have channels that ``trivial`` does
                not support.
        """
        self.config = config
        if config.trivial and train.channels not in (1, 3):
            raise UserError(
                f"--augment.trivial is for images of 1 or 3 channels, not {train.channels}"
            )
        if train.image_shape is not None:
            height, width = train.image_shape[1:]
        else:
            # Where sizes differ, the least possible one.
            assert isinstance(train, ImageFiles)
            height = width = train.resize
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
        """Draws the random numbers of :meth:`apply` for ``count`` images of one size.

        They are int64 (count, 5) on the CPU: first row and column of each crop (negative outside
        the image), whether it is mirrored, and first row and column of its hole.
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
            # The middle of the hole lies in the image; its edges may lie outside.
            for column, length in ((_HOLE_TOP, height), (_HOLE_LEFT, width)):
                middle = torch.randint(length, (count,), generator=random)
                drawn[:, column] = middle - side // 2
        return drawn

    def apply(self, images: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        """Crops, mirrors and cuts holes by the numbers of :meth:`draw`, if ``batched``.

        uint8 (batch, channels, height, width) -> uint8 (batch, *output_shape), on any one device.
        """
        return self._cut_out(self._cropped(images, drawn), drawn)

    def image(self, image: torch.Tensor, seed: int) -> torch.Tensor:
        """Augments one image by a seed, on the CPU.

        uint8 (channels, height, width) of any size -> uint8 ``output_shape``.
        """
        random = torch.Generator().manual_seed(seed)
        config = self.config
        if (config.scale_from, config.scale_to) != (1, 1):
            span = config.scale_to - config.scale_from
            factor = config.scale_from + span * float(torch.rand((), generator=random))
            image = _resized(image, [max(1, round(side * factor)) for side in image.shape[1:]])
        height, width = image.shape[1:]
        drawn = self.draw(1, (height, width), random)
        images = self._cropped(image[None], drawn)
        if config.trivial:
            images = _trivially_augmented(images[0], seed)[None]
        return self._cut_out(images, drawn)[0]

    def held_out(self, images: torch.Tensor) -> torch.Tensor:
        """The centre crop: uint8 (..., height, width) -> (..., height', width')."""
        height, width = self.output_shape[1:]
        top, left = (images.shape[-2] - height) // 2, (images.shape[-1] - width) // 2
        if (top, left) == (0, 0):
            return images[..., :height, :width]
        if min(top, left) < 0:
            images = F.pad(images, [max(0, -left)] * 2 + [max(0, -top)] * 2)
            return self.held_out(images[..., max(0, top) :, max(0, left) :])
        return images[..., top : top + height, left : left + width]

    def _crops(self, size: tuple[int, int]) -> bool:
        """Whether images of this height and width are cropped or mirrored."""
        config = self.config
        return size != self.output_shape[1:] or config.crop_padding > 0 or config.flip

    def _cropped(self, images: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        """Random crops, half of them mirrored, by one index for every pixel."""
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
        # Advanced indexing puts the channels last.
        crops = images[index, :, row[:, :, None], column[:, None, :]].permute(0, 3, 1, 2)
        if self.config.edge == "mean":
            outside = ((row != rows)[:, :, None] | (column != columns)[:, None, :])[:, None]
            return torch.where(outside, self._mean_on(device), crops)
        return crops.contiguous()

    def _inside(self, places: torch.Tensor, length: int) -> torch.Tensor:
        """Replaces positions outside an image by positions inside it."""
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
        if device not in self._means:
            self._means[device] = self._mean.to(device)
        return self._means[device]


def _offsets(
    length: int, out: int, padding: int, count: int, random: torch.Generator
) -> torch.Tensor:
    """First rows (or columns) of crops, int64 (count,); negative outside the image."""
    # Scale jitter may make an image smaller than the crop: it then lies anywhere inside.
    least, most = sorted((-padding, length - out + padding))
    return torch.randint(least, most + 1, (count,), generator=random)


def _trivially_augmented(image: torch.Tensor, seed: int) -> torch.Tensor:
    from torchvision.transforms import v2

    # torchvision draws from torch's CPU generator, which dropout shares. torch.manual_seed would
    # also seed the generators of GPUs, which are not restored.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        changed: torch.Tensor = v2.TrivialAugmentWide()(image)
    return changed


def _resized(images: torch.Tensor, size: list[int]) -> torch.Tensor:
    from torchvision.transforms.v2 import functional

    return functional.resize(images, size, antialias=True)


def _mean_colour(images: LabelledImages) -> torch.Tensor:
    """The mean of each channel over some of the images, uint8 (channels, 1, 1)."""
    # Files are decoded only for this, so fewer are used.
    some = _MEAN_OF if images.image_shape else _MEAN_OF // 10
    step = max(1, len(images) // some)
    means = [images[i].double().mean(dim=(1, 2)) for i in range(0, len(images), step)]
    return torch.stack(means).mean(dim=0).round().to(torch.uint8)[:, None, None]
