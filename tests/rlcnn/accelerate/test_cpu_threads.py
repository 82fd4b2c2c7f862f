"""Thread counts that follow other programs' use of the cores, by the kernel's statistics."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from rlcnn.accelerate.cpu_threads import SpareCores

CORES = 4


class Kernel:
    """Statistics as in /proc, and a clock."""

    def __init__(self, proc: Path) -> None:
        self.proc, self.time = proc, 100.0
        self._busy, self._own, self._tick = 0.0, 0.0, os.sysconf("SC_CLK_TCK")
        (proc / str(os.getpid())).mkdir()
        self.passes(0, own=0, others=0)

    def passes(self, seconds: float, own: float, others: float) -> None:
        """Advances the clock while so many cores compute for us and for others."""
        self.time += seconds
        self._own += seconds * own
        self._busy += seconds * (own + others)
        # User, nice, system, idle, waiting for a disk, interrupts (two), stolen, guests (two).
        each = round(self._busy * self._tick / CORES)
        waited = round(self.time * self._tick)
        lines = [f"cpu{n} {each} 0 0 {waited} {waited} 0 0 0 {each} 0" for n in range(CORES)]
        (self.proc / "stat").write_text("\n".join(["cpu 1 2 3", *lines, "intr 5 6", "ctxt 7"]))
        fields = ["S", *["1"] * 10, str(round(self._own * self._tick)), "0", "1"]
        stat = self.proc / str(os.getpid()) / "stat"
        stat.write_text(f"{os.getpid()} (a program (odd) name) {' '.join(fields)}")


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(CORES)), raising=False)
    return Kernel(tmp_path)


@pytest.fixture(autouse=True)
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def spare_cores(kernel: Kernel, active: bool = True) -> SpareCores:
    return SpareCores(active, kernel.proc, lambda: kernel.time)


@pytest.mark.parametrize(
    ("own", "others", "threads"),
    [(4, 0, 4), (2.7, 1.3, 3), (1, 1, 3), (2, 2, 2), (1, 3, 1), (0.5, 4, 1), (1, 0.3, 4)],
)
def test_as_many_threads_as_others_leave_cores(
    own: float, others: float, threads: int, kernel: Kernel
) -> None:
    with spare_cores(kernel) as spare:
        kernel.passes(0.5, own=0, others=4)
        spare.adjust()
        assert torch.get_num_threads() == 4, "too early to change"
        kernel.passes(2.0, own=own, others=others)
        kernel.passes(-0.5, own=0, others=4)
        spare.adjust()
        assert torch.get_num_threads() == threads
    assert torch.get_num_threads() == 4


def test_the_threads_come_back_when_the_others_have_ended(kernel: Kernel) -> None:
    with spare_cores(kernel) as spare:
        kernel.passes(1.0, own=1, others=3)
        spare.adjust()
        assert torch.get_num_threads() == 1
        kernel.passes(1.0, own=1, others=0)
        spare.adjust()
        assert torch.get_num_threads() == 4


def test_a_block_soon_after_begins_as_the_last_ended(kernel: Kernel) -> None:
    spare = spare_cores(kernel)
    for pause, threads in ((0.5, 4), (0.5, 2), (60.0, 4)):
        kernel.passes(pause, own=0, others=2)
        with spare:
            assert torch.get_num_threads() == threads
            kernel.passes(1.0, own=2, others=2)
            spare.adjust()
        assert torch.get_num_threads() == 4


def test_nothing_changes_where_it_is_off_or_the_kernel_does_not_tell(kernel: Kernel) -> None:
    silent = spare_cores(kernel)
    for spare in (spare_cores(kernel, active=False), silent):
        if spare is silent:
            (kernel.proc / "stat").write_text("cpu 1 2 3\n")
        with spare:
            kernel.time += 5
            spare.adjust()
            assert torch.get_num_threads() == 4


def test_fewer_threads_than_free_cores_stay_as_they_are(kernel: Kernel) -> None:
    torch.set_num_threads(2)
    with spare_cores(kernel) as spare:
        kernel.passes(1.0, own=2, others=1)
        spare.adjust()
        assert torch.get_num_threads() == 2
