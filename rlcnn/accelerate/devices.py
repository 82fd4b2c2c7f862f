"""The device to compute on, its fast arithmetic, and the CPU threads to use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import torch

from envs.errors import UserError, nearest
from envs.machine.bfloat16 import has_fast_bfloat16

Precision = Literal["fp32", "tf32", "bf16"]
PRECISIONS = get_args(Precision)
"""Arithmetic of an encoder. Heads, losses and parameters are always float32."""


def resolve_device(device: str) -> str:
    """The device of a name such as "cpu" or "cuda"; a UserError if this machine lacks it."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "mps":
        raise UserError(
            'device "mps" is not supported: Apple GPUs lack kernels that training needs; use "cpu"'
        )
    try:
        wanted = torch.device(device)
    except RuntimeError:
        wanted = None
    if wanted is None or wanted.type not in ("cpu", "cuda"):
        # Other libraries say "gpu", or the number of one.
        numbered = f"cuda:{device}" if device.isdecimal() else "cuda:0"
        meant = "cuda" if device.lower() in ("gpu", "nvidia") else device
        hint = nearest(numbered if device.isdecimal() else meant, ("auto", "cpu", "cuda", numbered))
        raise UserError(f'unknown device "{device}": expected auto, cpu, cuda or cuda:N.{hint}')
    if wanted.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (wanted.index or 0) >= count:
            found = f"{count} CUDA device{'s' * (count != 1)}" if count else "no CUDA device"
            raise UserError(f'device "{device}" is not there: torch finds {found}; try "cpu"')
    return device


def resolve_precision(device: str) -> Literal["fp32", "bf16"]:
    """bf16 where ``device`` is faster at it, else fp32."""
    if torch.device(device).type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if has_fast_bfloat16() else "fp32"


def describe_device(device: str, precision: str, threads: int) -> str:
    """Such as ``cpu, fp32, 1 CPU thread``; a GPU's name stands behind its device."""
    on_gpu = torch.device(device).type == "cuda"
    name = f" ({torch.cuda.get_device_name(device)})" if on_gpu else ""
    return f"{device}{name}, {precision}, {threads} CPU thread{'s' * (threads != 1)}"


def prepare_device(device: torch.device | str, precision: Precision) -> None:
    """Sets how torch computes on a GPU, for the whole process; nothing on a CPU.

    Products of float32 are not rounded to TF32, whose mantissa has 10 bits, unless ``precision``,
    that of the encoder, is "tf32"; by default torch lets convolutions do so. cuDNN times its
    kernels for each shape and keeps the fastest, unless torch must be deterministic: another run
    may find another kernel fastest.
    """
    if torch.device(device).type != "cuda":
        return
    allow_tf32 = precision == "tf32"
    torch.set_float32_matmul_precision("high" if allow_tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = allow_tf32
    torch.backends.cudnn.benchmark = not (
        torch.are_deterministic_algorithms_enabled() or torch.backends.cudnn.deterministic
    )


@contextmanager
def use_threads(count: int) -> Iterator[None]:
    """Lets torch compute with ``count`` CPU threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
