"""Copies between host and device, as far as a CPU shows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch

from rlcnn.accelerate.transfers import Prefetcher, read_late

CPU = torch.device("cpu")


class Pair(NamedTuple):
    rows: torch.Tensor
    images: torch.Tensor | None


def test_a_cpu_gets_the_batches_themselves_none_of_them_early() -> None:
    batches = [Pair(torch.arange(3) + i, None if i == 1 else torch.zeros(3)) for i in range(4)]
    asked: list[int] = []

    def source() -> Iterator[Pair]:
        for number, batch in enumerate(batches):
            asked.append(number)
            yield batch

    for number, batch in enumerate(Prefetcher(CPU).prefetch(source())):
        assert batch is batches[number]
        assert asked[-1] == number


def test_a_cpu_reads_results_where_they_are() -> None:
    results = [torch.rand(2) for _ in range(3)]
    assert all(
        read is result for read, result in zip(read_late(results, CPU), results, strict=True)
    )
    assert list(read_late([], CPU)) == []
