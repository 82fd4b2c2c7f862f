"""A strided convolution computed over blocks of pixels, which is faster ("space to depth").

A convolution over few channels leaves matrix instructions mostly idle: four grey frames are four
channels, and the instructions take 32. Moving each s x s block of pixels into the channels turns a
convolution of stride s into one of stride 1 over s * s times as many channels. Its kernel holds the
same numbers in another order.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def blocks_to_channels(images: torch.Tensor, block: int) -> torch.Tensor:
    """Moves blocks of ``block`` x ``block`` pixels into the channels.

    (batch, channels, height, width) becomes (batch, channels * block**2, height // block, width //
    block) in channels_last order; channel ``(c * block + y) * block + x`` is pixel (y, x) of the
    block in channel c. Rows and columns outside of whole blocks are cut off.
    """
    if block == 1:
        return images
    if torch.compiler.is_compiling() and not images.requires_grad:
        moved = _move_blocks_uncompiled(images, block)
    else:
        moved = _move_blocks(images, block)
    return moved.permute(0, 3, 1, 2)


class BlockedConv2d(nn.Conv2d):
    """A convolution of the result of :func:`blocks_to_channels`, with its stride as block.

    Its parameters equal those of a plain convolution, and so does its output up to rounding.
    ``kernel_size`` is a multiple of ``stride``. ``input_scale`` is a factor on the input; it is
    applied to the filters, which are fewer numbers.
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
        """The kernel for blocks: (out_channels, in_channels * stride**2, ...)."""
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
        """Stores :meth:`kernel` in ``dtype`` for all calls until the next ``cache_kernel``.

        For inference with few observations, where making the kernel takes much of the time.
        """
        kernel = self.kernel()
        if self._cached_kernel is None:
            self._cached_kernel = kernel.to(dtype)
        else:
            # In place, since captured graphs read this memory.
            self._cached_kernel.copy_(kernel)


def cache_kernels(network: nn.Module, dtype: torch.dtype) -> None:
    """:meth:`BlockedConv2d.cache_kernel` for every such layer of a network used for inference."""
    for layer in network.modules():
        if isinstance(layer, BlockedConv2d):
            layer.cache_kernel(dtype)


def _move_blocks(images: torch.Tensor, block: int) -> torch.Tensor:
    """Blocks as channels, (batch, rows, columns, channels * block**2), contiguous."""
    batch, channels, height, width = images.shape
    rows, columns = height // block, width // block
    images = images[:, :, : rows * block, : columns * block].contiguous()
    # torch ignores the stride of an axis of length 1; a view as integers does not.
    images = images.view(-1).view(batch, channels, rows * block, columns * block)
    # A block's row of pixels moves as one integer if there is one of this size.
    whole = _INTEGERS.get(block * images.element_size())
    if whole is None or images.requires_grad:
        parts = images.view(batch, channels, rows, block, columns, block)
        moved = parts.permute(0, 2, 4, 1, 3, 5).contiguous()
    else:
        # Flat, since a view as integers refuses odd strides of dimensions of size 1. It also
        # refuses to begin inside an integer.
        pixels = images.view(-1)
        if pixels.storage_offset() % block:
            pixels = pixels.clone()
        numbers = pixels.view(whole).view(batch, channels, rows, block, columns)
        # A clone has standard strides; contiguous() keeps odd ones of dimensions of size 1 and of
        # empty tensors.
        if images.device.type == "cpu":
            # Whole rows first: a CPU copies the longest run that is contiguous on both sides at
            # once, which would be as short as a block without this step.
            bands = numbers.transpose(1, 2).reshape(batch * rows, channels * block, columns)
            moved = bands.transpose(1, 2).clone(memory_format=torch.contiguous_format)
        else:
            moved = numbers.permute(0, 2, 4, 1, 3).clone(memory_format=torch.contiguous_format)
        moved = moved.view(images.dtype)
    return moved.view(batch, rows, columns, channels * block**2)


# On a CPU, inductor's loops for this move are several times slower than torch's copy.
@torch.library.custom_op("rlcnn::move_blocks", mutates_args=())
def _move_blocks_uncompiled(images: torch.Tensor, block: int) -> torch.Tensor:
    return _move_blocks(images, block)


@_move_blocks_uncompiled.register_fake
def _(images: torch.Tensor, block: int) -> torch.Tensor:
    batch, channels, height, width = images.shape
    rows, columns = height // block, width // block
    return images.new_empty((batch, rows, columns, channels * block**2))
