"""Images of any layout and range, as uint8 of 0..255."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from gymnasium import spaces


def to_rgb(image: np.ndarray) -> np.ndarray:
    """An image in any layout that ``PixelVecEnv`` takes, as (height, width, 3)."""
    image = _channels_last(image)
    return image if image.ndim == 3 else cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)


def to_grey(image: np.ndarray) -> np.ndarray:
    """An image in any layout that ``PixelVecEnv`` takes, as (height, width)."""
    image = _channels_last(image)
    return image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


def _channels_last(image: np.ndarray) -> np.ndarray:
    """A contiguous (height, width) or (height, width, 3)."""
    if image.ndim == 3 and image.shape[-1] not in (1, 3):
        image = image.transpose(1, 2, 0)
    if image.ndim == 3 and image.shape[-1] == 1:
        image = image[:, :, 0]
    return np.ascontiguousarray(image)


def value_range(space: spaces.Box) -> tuple[int, int] | None:
    """The least and the greatest value that a uint8 space declares.

    Returns:
        None where the bounds differ from pixel to pixel, or leave no room between them.
    """
    low, high = int(space.low.min()), int(space.high.max())
    uniform = (space.low == low).all() and (space.high == high).all()
    return (low, high) if uniform and low < high else None


def stretch_table(low: int, high: int) -> np.ndarray:
    """What each value of an image becomes where low..high is stretched to 0..255: uint8 (256,)."""
    stretched = (np.arange(256) - low) * (255 / (high - low))
    return np.clip(np.rint(stretched), 0, 255).astype(np.uint8)


def rendered_picture(rendered: Any) -> np.ndarray:
    """What an environment rendered, as uint8 (height, width, 3).

    Args:
        rendered: grey or colour, with or without alpha, which is dropped; integers and floats of
            0..255, booleans and floats of 0..1. Of a list of pictures the last is taken.

    Raises:
        ValueError: it is no such picture; the message completes "it renders ...".
    """
    if isinstance(rendered, list | tuple) and rendered and np.ndim(rendered[-1]) >= 2:
        whole_picture = np.ndim(rendered[-1]) == 2 and np.shape(rendered[-1])[-1] in (3, 4)
        # Rows of one picture in colour, or pictures.
        rendered = rendered if whole_picture else rendered[-1]
    try:
        picture = np.asarray(rendered)
    except ValueError:
        raise ValueError(f"a {type(rendered).__name__} that is no picture") from None
    if picture.dtype.kind not in "buif":
        raise ValueError(f"{_kind(rendered)}, not a picture")
    shape = picture.shape
    layout = len(shape) == 2 or (
        len(shape) == 3 and (shape[-1] in (1, 3, 4) or shape[0] in (1, 3, 4))
    )
    if not layout or not picture.size:
        raise ValueError(f"an array of shape {shape}, not a picture (height, width, 3)")
    if len(shape) == 3:
        if shape[-1] not in (1, 3, 4):
            picture = picture.transpose(1, 2, 0)
        picture = picture[:, :, : 3 if picture.shape[-1] == 4 else None]
    return to_rgb(_as_bytes(picture))


def _as_bytes(picture: np.ndarray) -> np.ndarray:
    if picture.dtype == np.uint8:
        return picture
    least, most = float(picture.min()), float(picture.max())
    # Written so that NaN fails, too.
    if not (least >= 0 and most <= 255):
        raise ValueError(f"values of {least:g}..{most:g}, not 0..255")
    is_share = picture.dtype.kind == "b" or (picture.dtype.kind == "f" and most <= 1)
    return np.rint(picture * 255.0 if is_share else picture).astype(np.uint8)


def _kind(rendered: Any) -> str:
    return "None" if rendered is None else f"a {type(rendered).__name__}"
