"""Image files decoded into tensors; a damaged file is refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from envs.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

# Channels -> the mode that Pillow converts an image to.
_MODES = {1: "L", 3: "RGB"}


def read_image(path: Path, channels: int = 3, resize: int = 0) -> torch.Tensor:
    """Decodes an image file to uint8 (channels, height, width), upright by its EXIF orientation.

    Pillow reads the file. 3 ``channels`` are RGB, and 1 is grey. ``resize`` is the shorter side in
    pixels of the result (bilinear, antialiased); 0 keeps the size.

    Raises:
        UserError: the file is missing, truncated, damaged or not an image.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            if image.mode in ("I", "F"):
                raise UserError(
                    f'"{path}" has pixels of 32 bits, whose range is unknown: expected 8 or 16'
                )
            turned = orientation(image)
            pixels = _upright(_in_bytes(image), turned).convert(_MODES[channels])
            if resize:
                factor = resize / min(pixels.size)
                width, height = (max(resize, round(side * factor)) for side in pixels.size)
                pixels = pixels.resize((width, height), Image.Resampling.BILINEAR)
    except UserError:
        raise
    # Pillow's decoders raise errors of many kinds for a damaged file.
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise unreadable(path, error) from error
    array = np.array(pixels)
    return torch.from_numpy(array[None] if channels == 1 else array.transpose(2, 0, 1).copy())


def orientation(image: PillowImage) -> int:
    """The EXIF orientation of an image, 1 (upright) to 8."""
    from PIL import ExifTags

    # Pillow itself turns a TIFF while it decodes it, and so changes its size.
    if image.format == "TIFF":
        image.load()
    # Damaged EXIF data raises errors of many kinds.
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:
        return 1
    return value if value in range(1, 9) else 1


def _upright(image: PillowImage, turned: int) -> PillowImage:
    from PIL.Image import Transpose

    methods = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    return image.transpose(methods[turned]) if turned in methods else image


def _in_bytes(image: PillowImage) -> PillowImage:
    """The image with 8 bits a channel; of 16 bits the upper 8 are kept, where Pillow would clip."""
    from PIL import Image

    # Pillow warns unless such an image is converted to RGBA first.
    if image.mode == "P" and "transparency" in image.info:
        return image.convert("RGBA")
    # The rest of the mode is the byte order.
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image


def unreadable(path: Path, error: Exception) -> UserError:
    """The error for a file that is not a whole image."""
    from PIL import Image, UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        what = "not an image that Pillow can read" if path.stat().st_size else "empty, not an image"
        return UserError(f'"{path}" is {what}')
    if isinstance(error, Image.DecompressionBombError):
        return UserError(f'"{path}" is too large: {error}')
    if isinstance(error, OSError) and error.strerror:
        return UserError(f'cannot read "{path}": {error.strerror}')
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return UserError(f'"{path}" is truncated or damaged: {reason}')
