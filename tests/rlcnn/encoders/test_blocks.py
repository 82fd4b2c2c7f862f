"""Convolutions over blocks of pixels, against plain ones."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rlcnn.encoders.blocks import BlockedConv2d, blocks_to_channels


def images(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, shape, generator=generator).to(dtype)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("block", [2, 3, 4])
@pytest.mark.parametrize("size", [(12, 24), (13, 26)])
def test_every_pixel_of_a_block_becomes_a_channel(
    dtype: torch.dtype, block: int, size: tuple[int, int]
) -> None:
    pictures = images(dtype, 2, 3, *size)
    blocks = blocks_to_channels(pictures, block)
    assert blocks.shape == (2, 3 * block**2, size[0] // block, size[1] // block)
    assert blocks.is_contiguous(memory_format=torch.channels_last)
    # torch's own rearrangement, which has the same order of channels.
    cut = pictures[:, :, : size[0] // block * block, : size[1] // block * block]
    assert torch.equal(blocks, nn.functional.pixel_unshuffle(cut, block))


def layouts(batch: int, channels: int, height: int, width: int) -> dict[str, torch.Tensor]:
    """Bytes that lie in memory in many ways, each of the same shape but for the batch."""
    plain = images(torch.uint8, batch, channels, height, width)
    larger = images(torch.uint8, 2 * batch, channels + 1, 2 * height, 2 * width + 1)
    memory = images(torch.uint8, plain.numel() + 1)
    return {
        "channel last": plain.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2),
        "batch last": plain.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2),
        "transposed": plain.mT.contiguous().mT,
        "expanded": plain[:1].expand(batch, -1, -1, -1),
        "every second": larger[::2, 1:, ::2, 1::2],
        "odd offset": memory[1:].view(plain.shape),
        "one": plain[-1:],
    }


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("block", [2, 3, 4])
def test_it_does_not_matter_how_images_lie_in_memory(channels: int, block: int) -> None:
    for layout, pictures in layouts(3, channels, 12, 24).items():
        blocks = blocks_to_channels(pictures, block)
        assert torch.equal(blocks, nn.functional.pixel_unshuffle(pictures, block)), layout
    assert blocks_to_channels(pictures[:0], block).shape == (0, *blocks.shape[1:])


@pytest.mark.parametrize(
    ("kernel", "stride", "size"), [(8, 4, 84), (8, 4, 38), (4, 2, 20), (6, 3, 31)]
)
def test_it_computes_the_plain_convolution(kernel: int, stride: int, size: int) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(4, 8, kernel, stride).double()
    blocked = BlockedConv2d(4, 8, kernel, stride).double()
    blocked.load_state_dict(plain.state_dict())
    pictures = torch.rand(3, 4, size, size, dtype=torch.float64, requires_grad=True)
    expected, output = plain(pictures), blocked(blocks_to_channels(pictures, stride))
    torch.testing.assert_close(output, expected)
    for mine, its in zip(
        torch.autograd.grad(output.square().sum(), [pictures, *blocked.parameters()]),
        torch.autograd.grad(expected.square().sum(), [pictures, *plain.parameters()]),
        strict=True,
    ):
        torch.testing.assert_close(mine, its)


def test_scaling_the_filters_is_scaling_the_pixels() -> None:
    torch.manual_seed(0)
    plain = BlockedConv2d(4, 8, 8, 4).double()
    scaling = BlockedConv2d(4, 8, 8, 4, input_scale=1 / 255).double()
    scaling.load_state_dict(plain.state_dict())
    blocks = blocks_to_channels(images(torch.float64, 3, 4, 36, 36), 4)
    expected, output = plain(blocks / 255), scaling(blocks)
    torch.testing.assert_close(output, expected)
    for mine, its in zip(
        torch.autograd.grad(output.square().sum(), list(scaling.parameters())),
        torch.autograd.grad(expected.square().sum(), list(plain.parameters())),
        strict=True,
    ):
        torch.testing.assert_close(mine, its)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_cached_kernel_stays_until_it_is_cached_again(dtype: torch.dtype) -> None:
    layer = BlockedConv2d(4, 8, 8, 4, input_scale=1 / 255)
    blocks = blocks_to_channels(images(torch.uint8, 3, 4, 36, 36), 4).to(dtype)

    def outputs() -> torch.Tensor:
        with torch.no_grad(), torch.autocast("cpu", enabled=dtype == torch.bfloat16):
            return layer(blocks)

    before = outputs()
    layer.cache_kernel(dtype)
    place = layer._cached_kernel.data_ptr()  # type: ignore[union-attr]
    with torch.no_grad():
        layer.weight.mul_(2)
    assert torch.equal(outputs(), before)
    layer.cache_kernel(dtype)
    cached = outputs()
    assert not torch.equal(cached, before)
    # Where a captured graph reads it.
    assert layer._cached_kernel.data_ptr() == place  # type: ignore[union-attr]
    layer._cached_kernel = None
    assert torch.equal(outputs(), cached)


def test_a_kernel_of_no_whole_blocks_is_refused() -> None:
    with pytest.raises(ValueError, match="kernel_size 5 is no multiple of stride 2"):
        BlockedConv2d(1, 1, 5, 2)


def test_compiling_changes_nothing() -> None:
    pictures = images(torch.uint8, 2, 4, 36, 36)
    compiled = torch.compile(blocks_to_channels, backend="aot_eager")
    assert torch.equal(compiled(pictures, 4), blocks_to_channels(pictures, 4))
