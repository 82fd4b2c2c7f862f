"""Forward and backward passes of encoders."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

from agents.benchmark.encoder_table import (
    Passes,
    image_models,
    measure_encoders,
    registered_encoders,
)
from rlcnn.encoders import list_encoders


def ignore(line: str) -> None:
    pass


def test_every_registered_encoder_has_a_row_in_each_precision() -> None:
    passes = registered_encoders("cpu", ("fp32", "bf16"), batch=2)
    assert [(one.name, one.precision) for one in passes] == [
        (name, precision) for name in list_encoders() for precision in ("fp32", "bf16")
    ]
    # Some of them are measured: a processor without bfloat16 takes seconds for a large one.
    few = [one for one in passes if one.name in ("nature", "lenet")]
    rows = measure_encoders(few, rounds=2, seconds=1e-9, threads=1, log=ignore)
    nature = next(row for row in rows if row.name == "nature")
    assert nature.input_shape == (2, 4, 84, 84)
    assert nature.parameters == 1_684_128
    for row in rows:
        assert len(row.forward_ms.samples) == len(row.backward_ms.samples) == 2
        sums = [
            sum(both) for both in zip(row.forward_ms.samples, row.backward_ms.samples, strict=True)
        ]
        assert list(row.total_ms.samples) == sums


class Logged(nn.Module):
    """Writes down its passes."""

    def __init__(self, name: str, log: list[str]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.name, self.log = name, log

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        precision = "bf16" if torch.is_autocast_enabled("cpu") else "fp32"
        self.log.append(f"{self.name} {precision}")
        y = x * self.weight
        y.register_hook(lambda grad: self.log.append(f"{self.name} backward"))
        return y


def test_networks_are_timed_in_turn_forward_and_backward() -> None:
    log: list[str] = []
    one, other = (Logged(name, log) for name in "ab")
    x = torch.zeros(1)
    passes = [Passes("a", one, x, "fp32"), Passes("b", other, x, "bf16")]
    measure_encoders(passes, rounds=2, seconds=1e-9, threads=1, log=ignore)
    # Once to warm up and once to be timed.
    a, b = ["a fp32", "a backward"] * 2, ["b bf16", "b backward"] * 2
    assert log == (a + b) * 2
    assert one.weight.grad is not None


def test_torchvisions_networks_come_as_they_are() -> None:
    pytest.importorskip("torchvision")
    passes = image_models(("squeezenet1_0",), "cpu", ("fp32",), ignore, shape=(1, 3, 64, 64))
    (row,) = measure_encoders(passes, rounds=1, seconds=1e-9, threads=1, log=ignore)
    assert (row.name, row.input_shape) == ("squeezenet1_0", (1, 3, 64, 64))
    assert row.parameters == 1_248_424


def test_without_torchvision_a_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    lines: list[str] = []
    assert image_models(("resnet18",), "cpu", ("fp32",), lines.append) == []
    (line,) = lines
    assert line.startswith("ImageNet's networks are left out: ")
    assert image_models((), "cpu", ("fp32",), lines.append) == []
    assert len(lines) == 1
