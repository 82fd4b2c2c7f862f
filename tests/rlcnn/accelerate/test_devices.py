"""Devices by name, the arithmetic they are fast at, and CPU threads."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from envs.errors import UserError
from rlcnn.accelerate import devices
from rlcnn.accelerate.devices import prepare_device, resolve_device, resolve_precision


def refused(said: str) -> Any:
    """That a line containing ``said`` (a pattern) is raised, and that it is one line."""
    return pytest.raises(UserError, match=rf"\A[^\n]*{said}[^\n]*\Z")


@pytest.mark.parametrize("device", ["gpu", "cud", "", "tpu:0", "cuda:x"])
def test_an_unknown_device_is_refused(device: str) -> None:
    with refused(f'unknown device "{device}": expected auto, cpu, cuda or cuda:N'):
        resolve_device(device)


def test_apple_gpus_are_refused() -> None:
    with refused('device "mps" is not supported: .* use "cpu"'):
        resolve_device("mps")


@pytest.mark.parametrize(("precision", "tf32"), [("fp32", False), ("tf32", True), ("bf16", False)])
def test_only_tf32_lets_a_gpu_round_float32(
    precision: Any, tf32: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    before = torch.get_float32_matmul_precision()
    try:
        prepare_device("cpu", precision)
        assert torch.backends.cudnn.allow_tf32
        assert not torch.backends.cudnn.benchmark
        prepare_device("cuda", precision)
        assert torch.backends.cudnn.allow_tf32 == tf32
        assert (torch.get_float32_matmul_precision() == "high") == tf32
        assert torch.backends.cudnn.benchmark
        torch.backends.cudnn.deterministic = True
        prepare_device("cuda", precision)
        assert not torch.backends.cudnn.benchmark
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_cuda_without_cuda_is_refused(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with refused(f'device "{device}" is not there: torch finds no CUDA device; try "cpu"'):
        resolve_device(device)


def test_a_cuda_device_beyond_the_last_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("cuda:1") == "cuda:1"
    assert resolve_device("auto") == "cuda"
    with refused('device "cuda:2" is not there: torch finds 2 CUDA devices'):
        resolve_device("cuda:2")


@pytest.mark.parametrize(("fast", "precision"), [(True, "bf16"), (False, "fp32")])
def test_bf16_is_chosen_where_the_processor_is_fast_at_it(
    fast: bool, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "has_fast_bfloat16", lambda: fast)
    assert resolve_precision("cpu") == precision
