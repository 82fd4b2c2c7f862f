"""Pictures of a film side by side."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from envs.errors import UserError

_GAP = 4


def film_strip(
    video: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    seconds: Sequence[float] | None = None,
    pictures: int = 6,
    height: int = 210,
) -> Path:
    """Writes pictures of a film side by side as a PNG, and returns its path.

    Args:
        video: a film, such as one of ``film_episode``.
        path: path of the PNG.
        seconds: time of each picture; by default ``pictures`` times spread evenly over the film.
        pictures: number of pictures without ``seconds``.
        height: height of each picture in pixels.

    Raises:
        UserError: the film cannot be read or is too short, or the PNG cannot be written.
    """
    reader = cv2.VideoCapture(os.fspath(video))
    try:
        total = int(reader.get(cv2.CAP_PROP_FRAME_COUNT))
        fps = reader.get(cv2.CAP_PROP_FPS)
        if not reader.isOpened() or total < 1:
            raise UserError(f"film {os.fspath(video)} cannot be read")
        if seconds is None:
            wanted = [int((i + 0.5) * total / pictures) for i in range(pictures)]
        else:
            wanted = [int(second * fps) for second in seconds]
        strip = [_picture(reader, index, total, video, height) for index in wanted]
    finally:
        reader.release()
    gap = np.full((height, _GAP, 3), 255, dtype=np.uint8)
    row = [part for picture in strip for part in (picture, gap)][:-1]
    path = Path(path)
    encoded, png = cv2.imencode(".png", np.concatenate(row, axis=1))
    assert encoded
    try:
        path.write_bytes(png.tobytes())
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    return path


def _picture(
    reader: cv2.VideoCapture, index: int, total: int, video: str | os.PathLike[str], height: int
) -> np.ndarray:
    if not 0 <= index < total:
        raise UserError(f"film {os.fspath(video)} has {total} pictures, so none at {index}")
    reader.set(cv2.CAP_PROP_POS_FRAMES, index)
    found, picture = reader.read()
    if not found:
        raise UserError(f"picture {index} of film {os.fspath(video)} cannot be read")
    width = round(picture.shape[1] * height / picture.shape[0])
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
