"""Usable cores under the quotas of control groups, versions 1 and 2."""

import os

import pytest

from envs.machine.cores import usable_cores


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Sixteen cores, and control groups that the test lays out."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)

    def cores(membership: str = "", **files: str) -> int:
        root = tmp_path / "cgroup"
        for name, text in files.items():
            path = root / name.replace("__", "/").replace("_max", ".max").replace("cfs", "cpu.cfs")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        (tmp_path / "membership").write_text(membership)
        return usable_cores(root, tmp_path / "membership")

    return cores


def test_affinity_alone(machine):
    assert machine() == 16


def test_no_control_groups_at_all(tmp_path):
    assert usable_cores(tmp_path / "none", tmp_path / "none") >= 1


@pytest.mark.parametrize(
    ("text", "cores"),
    [
        ("200000 100000\n", 2),
        ("250000 100000\n", 2),
        ("50000 100000\n", 1),
        ("max 100000\n", 16),
        ("9900000 100000\n", 16),
        ("nonsense\n", 16),
    ],
)
def test_version_2_quota(machine, text, cores):
    assert machine(cpu_max=text) == cores


@pytest.mark.parametrize(("quota", "cores"), [("300000", 3), ("-1", 16)])
def test_version_1_quota(machine, quota, cores):
    assert machine(cpu__cfs_quota_us=quota, cpu__cfs_period_us="100000") == cores


def test_the_smallest_quota_of_all_groups_around_holds(machine):
    files = {"pod__box__cpu_max": "max 100000", "pod__cpu_max": "400000 100000"}
    assert machine("0::/pod/box\n", **files) == 4
    assert machine("0::/pod/box\n", **files, pod__box__deep__cpu_max="100000 100000") == 4
    assert machine("0::/pod/box/deep\n") == 1
