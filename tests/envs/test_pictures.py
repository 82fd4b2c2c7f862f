"""What environments render, in any form, as one kind of picture."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from envs.pictures import rendered_picture

RGB = np.random.default_rng(0).integers(256, size=(4, 6, 3), dtype=np.uint8)
GREY = np.repeat(RGB[..., :1], 3, axis=-1)
HALF = RGB // 128


@pytest.mark.parametrize(
    ("rendered", "picture"),
    [
        (RGB, RGB),
        (np.dstack([RGB, RGB[..., 0]]), RGB),
        (RGB.transpose(2, 0, 1), RGB),
        (np.dstack([RGB, RGB[..., 0]]).transpose(2, 0, 1), RGB),
        (RGB[..., 0], GREY),
        (RGB[..., :1], GREY),
        (RGB / 255, RGB),
        ((RGB / 255).astype(np.float16), RGB),
        (np.dstack([RGB, RGB[..., 0]]) / 255, RGB),
        (RGB.astype(np.float32), RGB),
        (RGB.astype(np.int64), RGB),
        (HALF.astype(bool), HALF * 255),
        ((RGB // 2).astype(np.int8), RGB // 2),
        # Resizing and filters overshoot.
        (RGB / 255 * 1.0004 - 0.0002, RGB),
        (RGB * 1.0004 - 0.05, RGB),
        (RGB.tolist(), RGB),
        ([RGB[::-1], RGB], RGB),
        ((RGB,), RGB),
    ],
)
def test_every_form_of_a_picture_is_taken(rendered: Any, picture: np.ndarray) -> None:
    taken = rendered_picture(rendered)
    assert taken.dtype == np.uint8
    assert taken.flags.c_contiguous
    np.testing.assert_array_equal(taken, picture)


@pytest.mark.parametrize(
    ("rendered", "reason"),
    [
        (None, "None, not a picture"),
        ("+---+", "a str, not a picture"),
        ([], "not a picture"),
        ([None], "a list, not a picture"),
        ([[[1, 2], [3]]], "a list that is no picture"),
        (torch.zeros(4, 6, 3, requires_grad=True), "a Tensor that is no picture"),
        ([[1, 2], [3]], "a list that is no picture"),
        (np.zeros(5), r"shape \(5,\)"),
        (np.zeros((5, 6, 2)), r"shape \(5, 6, 2\)"),
        (np.zeros((0, 6, 3)), r"shape \(0, 6, 3\)"),
        (RGB / 255 - 1, "values of -"),
        (RGB * 4.0, r"values of .*, not 0\.\.255"),
        (np.full((4, 6), np.nan), "values of nan"),
    ],
)
def test_anything_else_is_refused_with_a_reason(rendered: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        rendered_picture(rendered)
