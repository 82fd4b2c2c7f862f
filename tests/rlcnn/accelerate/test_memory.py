"""Free memory, read from files like the kernel's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from envs.errors import UserError
from rlcnn.accelerate.memory import available_memory, choose_place

GB = 10**9


@pytest.fixture
def left(tmp_path: Path) -> Left:
    return Left(tmp_path)


class Left:
    """A system of which parts can be written."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.write("meminfo", "MemTotal: 16000000 kB\nMemAvailable: 8000000 kB\n")
        self.write("membership", "0::/pod/job\n4:memory:/old/job\n")

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def __call__(self) -> int | None:
        cgroup = self.root / "cgroup"
        return available_memory("cpu", self.root / "meminfo", cgroup, self.root / "membership")


def test_without_limits_it_is_what_the_kernel_calls_available(left: Left) -> None:
    assert left() == 8_192_000_000


@pytest.mark.parametrize("group", ["", "pod/", "pod/job/"])
def test_limits_of_version_2_hold_for_all_groups_below(left: Left, group: str) -> None:
    left.write(f"cgroup/{group}memory.max", f"{4 * GB}\n")
    left.write(f"cgroup/{group}memory.current", f"{3 * GB}\n")
    left.write(f"cgroup/{group}memory.stat", f"anon {2 * GB}\ninactive_file {GB}\n")
    assert left() == 2 * GB


def test_limits_of_version_1_are_read(left: Left) -> None:
    left.write("cgroup/memory/old/job/memory.limit_in_bytes", f"{2 * GB}\n")
    left.write("cgroup/memory/old/job/memory.usage_in_bytes", f"{GB}\n")
    left.write("cgroup/memory/old/job/memory.stat", "total_inactive_file 0\n")
    assert left() == GB


def test_no_limit_and_nonsense_limit_nothing(left: Left) -> None:
    left.write("cgroup/pod/memory.max", "max\n")
    left.write("cgroup/pod/memory.current", f"{GB}\n")
    left.write("cgroup/pod/memory.stat", "")
    left.write("cgroup/memory.max", "nonsense\n")
    assert left() == 8_192_000_000


def test_a_system_that_says_nothing_is_believed(left: Left) -> None:
    (left.root / "meminfo").unlink()
    assert left() is None


def test_this_machine_says_something_sensible() -> None:
    available = available_memory("cpu")
    assert available is None or 2**20 < available < 2**50


def test_what_does_not_fit_on_the_gpu_goes_to_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    free = {"cuda": 8 * GB, "cpu": 16 * GB}
    monkeypatch.setattr(
        "rlcnn.accelerate.memory.available_memory", lambda d: free[torch.device(d).type]
    )
    gpu, host = torch.device("cuda:0"), torch.device("cpu")
    assert choose_place("auto", gpu, 6 * GB, "it") == gpu
    assert choose_place("auto", gpu, 9 * GB, "it") == host
    assert choose_place("cpu", gpu, 6 * GB, "it") == host
    assert choose_place("cuda", gpu, 6 * GB, "it") == gpu
    with pytest.raises(UserError, match=r"it needs 9.00 GB on cuda:0, where 8.00 GB are available"):
        choose_place("cuda", gpu, 9 * GB, "it")
    with pytest.raises(UserError, match=r"it needs 20.00 GB on cpu, where 16.00 GB"):
        choose_place("auto", gpu, 20 * GB, "it")
    with pytest.raises(UserError, match='on "auto" or "cpu" or "cuda" or "cuda:0", not on "tpu"'):
        choose_place("tpu", gpu, GB, "it")
