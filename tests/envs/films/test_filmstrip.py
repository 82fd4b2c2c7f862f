"""Film strips: the right pictures of a real film, in order."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from envs.errors import UserError
from envs.films.filmstrip import film_strip
from envs.films.mp4 import Mp4Writer


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """60 pictures in 2 seconds that grow brighter from black to white."""
    with Mp4Writer(tmp_path / "film.mp4", fps=30, height=64) as writer:
        for i in range(60):
            writer.add(np.full((64, 64, 3), round(i * 255 / 59), dtype=np.uint8))
    return tmp_path / "film.mp4"


def test_pictures_stand_in_the_order_of_the_film(film: Path, tmp_path: Path) -> None:
    strip = cv2.imread(str(film_strip(film, tmp_path / "strip.png", pictures=4, height=64)))
    assert strip.shape == (64, 4 * 64 + 3 * 4, 3)
    brightness = [strip[32, 32 + i * 68].mean() for i in range(4)]
    assert brightness == pytest.approx([30, 95, 160, 225], abs=12)


def test_pictures_are_taken_at_the_seconds_asked_for(film: Path, tmp_path: Path) -> None:
    strip = cv2.imread(str(film_strip(film, tmp_path / "s.png", seconds=[1.9, 0.0], height=64)))
    assert strip[32, 32].mean() > 230
    assert strip[32, 100].mean() < 15


@pytest.mark.parametrize("seconds", [[2.1], [-1.0]])
def test_refuses_times_outside_the_film(film: Path, tmp_path: Path, seconds: list[float]) -> None:
    with pytest.raises(UserError, match="has 60 pictures"):
        film_strip(film, tmp_path / "strip.png", seconds=seconds)


def test_refuses_what_is_no_film(tmp_path: Path) -> None:
    (tmp_path / "no.mp4").write_bytes(b"not a film")
    with pytest.raises(UserError, match="cannot be read"):
        film_strip(tmp_path / "no.mp4", tmp_path / "strip.png")
