"""A strided convolution computed over blocks of pixels, which suits matrix units better.

A convolution of stride s over few channels leaves a processor's matrix instructions mostly idle:
four grey frames are four channels, where they take 32 at a time. Moving each s x s block of pixels
into the channels makes of it a convolution of stride 1 over s * s times as many channels, whose
kernel holds the same numbers in another order ("space to depth").
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def blocks_to_channels(images: torch.Tensor, block: int) -> torch.Tensor:
    """Moves blocks of pixels into the channels.

    Args:
        images: (batch, channels, height, width); rows and columns beyond a multiple of ``block``
            are left out.
        block: side of a block, in pixels; 1 changes nothing.

    Returns:
        (batch, channels * block**2, height // block, width // block) in channels_last order;
        channel ``(c * block + y) * block + x`` is pixel (y, x) of the block in channel c.
    """
    if block == 1:
        return images
    if torch.compiler.is_compiling() and not images.requires_grad:
        moved = _move_blocks_uncompiled(images, block)
    else:
        moved = _move_blocks(images, block)
    return moved.permute(0, 3, 1, 2)


class BlockedConv2d(nn.Conv2d):
    """A convolution whose input was given to :func:`blocks_to_channels`, with its stride as block.

    Its parameters are those of the plain convolution, and so is its output, to rounding.

    Args:
        in_channels: of the images, before blocks were moved.
        out_channels: filters.
        kernel_size: side of a filter, in pixels, a multiple of ``stride``.
        stride: in pixels; the side of a block.
        input_scale: what the input is multiplied by before the convolution. The filters are, which
            are fewer numbers and come to the same.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        *,
        input_scale: float = 1.0,
    ) -> None:
        if kernel_size % stride:
            raise ValueError(f"kernel_size {kernel_size} is no multiple of stride {stride}")
        super().__init__(in_channels, out_channels, kernel_size, stride=stride)
        self.block = stride
        self.input_scale = input_scale
        self._cached_kernel: torch.Tensor | None = None

    def forward(self, blocks: torch.Tensor) -> torch.Tensor:
        """(batch, in_channels * stride**2, rows, columns) -> (batch, out_channels, ...)."""
        kernel = self.kernel() if self._cached_kernel is None else self._cached_kernel
        return F.conv2d(blocks, kernel, self.bias)

    def kernel(self) -> torch.Tensor:
        """What blocks are convolved with: (out_channels, in_channels * stride**2, ...)."""
        block = self.block
        out_channels, channels, height, width = self.weight.shape
        weight = (self.weight * self.input_scale).reshape(
            out_channels, channels, height // block, block, width // block, block
        )
        return (
            weight.permute(0, 1, 3, 5, 2, 4)
            .reshape(out_channels, channels * block**2, height // block, width // block)
            .contiguous(memory_format=torch.channels_last)
        )

    @torch.no_grad()
    def cache_kernel(self, dtype: torch.dtype) -> None:
        """Makes :meth:`kernel` now, in ``dtype``, for all calls until the next ``cache_kernel``.

        For inference with few observations, of which making it takes a good part.
        """
        kernel = self.kernel()
        if self._cached_kernel is None:
            self._cached_kernel = kernel.to(dtype)
        else:
            # In place: captured graphs read it where it lies.
            self._cached_kernel.copy_(kernel)


def cache_kernels(network: nn.Module, dtype: torch.dtype) -> None:
    """:meth:`BlockedConv2d.cache_kernel` for every such layer of a network that only infers."""
    for layer in network.modules():
        if isinstance(layer, BlockedConv2d):
            layer.cache_kernel(dtype)


def _move_blocks(images: torch.Tensor, block: int) -> torch.Tensor:
    """Blocks as channels, (batch, rows, columns, channels * block**2), contiguous."""
    batch, channels, height, width = images.shape
    rows, columns = height // block, width // block
    images = images[:, :, : rows * block, : columns * block].contiguous()
    # torch takes any stride of an axis of length 1 for contiguous; viewing as integers does not.
    images = images.view(-1).view(batch, channels, rows * block, columns * block)
    # A block's row of pixels is moved as one number where there is one of that size.
    whole = _INTEGERS.get(block * images.element_size())
    if whole is None or images.requires_grad:
        parts = images.view(batch, channels, rows, block, columns, block)
        moved = parts.permute(0, 2, 4, 1, 3, 5).contiguous()
    else:
        # As one dimension, since a dimension of size 1 may have any stride, which such a view of
        # the type refuses. It also refuses a view that begins inside a number.
        pixels = images.view(-1)
        if pixels.storage_offset() % block:
            pixels = pixels.clone()
        numbers = pixels.view(whole).view(batch, channels, rows, block, columns)
        # A clone has the strides of its shape, whatever the sizes; contiguous() keeps strange ones
        # of dimensions of size 1, and of a tensor without elements.
        if images.device.type == "cpu":
            # Whole rows first: a CPU copies in one go the longest run that is laid out alike on
            # both sides, which all at once would be as short as a block.
            bands = numbers.transpose(1, 2).reshape(batch * rows, channels * block, columns)
            moved = bands.transpose(1, 2).clone(memory_format=torch.contiguous_format)
        else:
            moved = numbers.permute(0, 2, 4, 1, 3).clone(memory_format=torch.contiguous_format)
        moved = moved.view(images.dtype)
    return moved.view(batch, rows, columns, channels * block**2)


# Inductor's own loops for such a move are several times slower than torch's copy on a CPU.
@torch.library.custom_op("rlcnn::move_blocks", mutates_args=())
def _move_blocks_uncompiled(images: torch.Tensor, block: int) -> torch.Tensor:
    return _move_blocks(images, block)


@_move_blocks_uncompiled.register_fake
def _(images: torch.Tensor, block: int) -> torch.Tensor:
    batch, channels, height, width = images.shape
    rows, columns = height // block, width // block
    return images.new_empty((batch, rows, columns, channels * block**2))
