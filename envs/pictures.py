"""Converts images of any layout and range to uint8 of 0..255."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from gymnasium import spaces

# Share by which floats may exceed their bounds: filters and resizing exceed them by less.
_ROUNDING = 1e-3


def to_rgb(image: np.ndarray) -> np.ndarray:
    """An image in any layout of ``PixelVecEnv`` -> (height, width, 3)."""
    image = _channels_last(image)
    return image if image.ndim == 3 else cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)


def to_grey(image: np.ndarray) -> np.ndarray:
    """An image in any layout of ``PixelVecEnv`` -> (height, width)."""
    image = _channels_last(image)
    return image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


def _channels_last(image: np.ndarray) -> np.ndarray:
    """The image as contiguous (height, width) or (height, width, 3)."""
    if image.ndim == 3 and image.shape[-1] not in (1, 3):
        image = image.transpose(1, 2, 0)
    if image.ndim == 3 and image.shape[-1] == 1:
        image = image[:, :, 0]
    return np.ascontiguousarray(image)


def make_stretch(space: spaces.Box) -> Callable[[np.ndarray], np.ndarray] | None:
    """A function that stretches images of a uint8 space from its bounds to 0..255.

    Each pixel and channel has its own bounds; a pixel with a single value becomes 0.

    Returns:
        None if images do not change: the bounds are 0..255, or the space has only one image.
    """
    if not (space.low < space.high).any():
        return None
    bounds = uniform_bounds(space)
    if bounds == (0, 255):
        return None
    if bounds is not None:
        low, high = bounds
        table = np.rint((np.arange(256) - low) * (255 / (high - low))).clip(0, 255).astype(np.uint8)
        return lambda image: table[image]
    lows = space.low.astype(np.float32)
    spans = space.high - lows
    factors = np.divide(255, spans, out=np.zeros_like(spans), where=spans > 0)
    return lambda image: np.rint((image - lows) * factors).astype(np.uint8)


def uniform_bounds(space: spaces.Box) -> tuple[int, int] | None:
    """The bounds of a uint8 space, or None if they differ between pixels."""
    low, high = int(space.low.min()), int(space.high.max())
    return (low, high) if (space.low == low).all() and (space.high == high).all() else None


def rendered_picture(rendered: Any) -> np.ndarray:
    """Converts a rendered picture to uint8 (height, width, 3).

    Args:
        rendered: grey or colour; alpha is dropped. Integers and floats of 0..255, or booleans and
            floats of 0..1. Of a list of pictures the last is taken.

    Raises:
        ValueError: it is not such a picture; the message completes "it renders ...".
    """
    try:
        if isinstance(rendered, list | tuple) and rendered and np.ndim(rendered[-1]) >= 2:
            whole_picture = np.ndim(rendered[-1]) == 2 and np.shape(rendered[-1])[-1] in (3, 4)
            # The list holds rows of one colour picture, or pictures.
            rendered = rendered if whole_picture else rendered[-1]
        picture = np.asarray(rendered)
    except Exception:
        # Objects with their own conversion, such as tensors, raise any error.
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
    is_float = picture.dtype.kind == "f"
    slack = _ROUNDING if is_float else 0
    top = 1 if picture.dtype.kind == "b" or (is_float and most <= 1 + slack) else 255
    # The comparison is false for NaN.
    if not (-slack * top <= least and most <= (1 + slack) * top):
        raise ValueError(f"values of {least:g}..{most:g}, not 0..255")
    return np.rint(picture * (255.0 / top)).clip(0, 255).astype(np.uint8)


def _kind(rendered: Any) -> str:
    return "None" if rendered is None else f"a {type(rendered).__name__}"
