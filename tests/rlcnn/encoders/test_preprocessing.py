"""Preprocessing: uint8 images to a trunk's input."""

from __future__ import annotations

import pytest
import torch
from support.picture_files import images

from rlcnn.encoders import Preprocessing, create_encoder


def test_pixels_are_scaled_to_one_in_channels_last_order() -> None:
    values = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).repeat(1, 4, 1, 1)
    scaled = Preprocessing((4, 16, 16))(values)
    assert scaled.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(scaled, values / 255, rtol=1e-6, atol=0)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_unscaled_pixels_keep_their_values(precision: torch.dtype) -> None:
    observations = images(2, 4, 16, 16)
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        kept = Preprocessing((4, 16, 16), scaled=False)(observations)
    assert kept.dtype == precision
    assert torch.equal(kept, observations.to(precision))
    assert kept.is_contiguous(memory_format=torch.channels_last)
    for options in ({"resize": 8}, {"mean": (0.5,), "std": (0.5,)}):
        with pytest.raises(ValueError, match="just as they are"):
            Preprocessing((4, 16, 16), scaled=False, **options)  # type: ignore[arg-type]


def test_mean_and_std_repeat_over_stacked_frames() -> None:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    observations = images(2, 6, 8, 8)
    normalised = Preprocessing((6, 8, 8), mean=mean, std=std)(observations)
    for channel in range(6):
        expected = (observations[:, channel] / 255 - mean[channel % 3]) / std[channel % 3]
        torch.testing.assert_close(normalised[:, channel], expected, rtol=1e-4, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = Preprocessing((6, 8, 8), mean=mean, std=std)(observations)
    torch.testing.assert_close(rounded, normalised.bfloat16())


def test_resize_keeps_a_flat_image_flat() -> None:
    resized = Preprocessing((1, 20, 30), resize=(10, 12))
    assert resized.output_shape == (1, 10, 12)
    output = resized(torch.full((2, 1, 20, 30), 51, dtype=torch.uint8))
    torch.testing.assert_close(output, torch.full((2, 1, 10, 12), 0.2))
    assert Preprocessing((1, 20, 30), resize=8).output_shape == (1, 8, 8)


def test_grey_frames_become_rgb_ones() -> None:
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    grey = images(2, 1, 8, 8)
    repeated = Preprocessing((1, 8, 8), mean=mean, std=std, grey_to_rgb=True)
    assert repeated.output_shape == (3, 8, 8)
    expected = Preprocessing((3, 8, 8), mean=mean, std=std)(grey.repeat(1, 3, 1, 1))
    torch.testing.assert_close(repeated(grey), expected)
    assert repeated(grey).is_contiguous(memory_format=torch.channels_last)
    with pytest.raises(ValueError, match="grey_to_rgb"):
        Preprocessing((3, 8, 8), mean=mean, std=std, grey_to_rgb=True)


def test_mean_and_std_must_fit_the_channels() -> None:
    with pytest.raises(ValueError, match="together"):
        Preprocessing((3, 8, 8), mean=(0.5, 0.5, 0.5))
    with pytest.raises(ValueError, match="do not fit 4 channels"):
        Preprocessing((4, 8, 8), mean=(0.5, 0.5, 0.5), std=(1, 1, 1))


def test_preprocessing_belongs_to_the_code_not_to_the_weights() -> None:
    encoder = create_encoder("lenet", (1, 32, 32))
    assert not [key for key in encoder.state_dict() if key.startswith("preprocessing")]


def test_anything_but_uint8_of_the_right_shape_is_refused() -> None:
    encoder = create_encoder("lenet", (1, 32, 32))
    with pytest.raises(TypeError, match=r"uint8.*float32"):
        encoder(torch.zeros(1, 1, 32, 32))
    with pytest.raises(ValueError, match=r"1, 32, 32.*\(2, 1, 28, 28\)"):
        encoder(images(2, 1, 28, 28))
