"""A run's checkpoints: each is there whole, or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import safetensors.torch
import torch
from support.run_files import save_checkpoint

from envs.errors import UserError
from rlcnn.runs.directory import RunDirectory


def test_a_checkpoint_appears_only_when_it_is_whole(run: RunDirectory) -> None:
    with run.new_checkpoint(5) as directory:
        (directory / "weights").write_bytes(b"abc")
        assert run.checkpoints() == []
        assert run.latest_whole() == (None, [])
    path = run.checkpoints_dir / "000000000005"
    assert run.checkpoints() == [path]
    assert run.verify(path) is None
    assert (path / "weights").read_bytes() == b"abc"
    assert list(run.checkpoints_dir.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_checkpoint_that_fails_leaves_nothing(
    run: RunDirectory, error: type[BaseException]
) -> None:
    first = save_checkpoint(run, 1)
    with pytest.raises(error), run.new_checkpoint(2):
        raise error
    assert list(run.checkpoints_dir.iterdir()) == [first]


@pytest.mark.parametrize(
    "write",
    [
        lambda path, tensors: safetensors.torch.save_file(tensors, path),
        lambda path, tensors: torch.save(tensors, path),
        lambda path, tensors: path.write_bytes(tensors["w"].numpy().tobytes()),
    ],
    ids=["safetensors", "torch", "bytes"],
)
def test_a_full_disk_during_a_checkpoint_loses_no_earlier_one(
    run: RunDirectory,
    largest_file: Callable[[int], AbstractContextManager[None]],
    write: Callable[[Path, dict[str, torch.Tensor]], object],
) -> None:
    first = save_checkpoint(run, 1)
    tensors = {"w": torch.zeros(10_000)}
    with (
        largest_file(10_000),
        pytest.raises(UserError, match=r"^cannot write .*000000000002: [^\n]+$"),
        run.new_checkpoint(2) as directory,
    ):
        write(directory / "weights", tensors)
    assert list(run.checkpoints_dir.iterdir()) == [first]
    assert run.latest_whole() == (first, [])


def test_a_checkpoint_of_the_same_step_takes_the_place_of_the_old(run: RunDirectory) -> None:
    path = save_checkpoint(run, 3, weights=b"old", extra=b"old")
    assert save_checkpoint(run, 3, weights=b"new") == path
    assert sorted(os.listdir(path)) == ["manifest.json", "weights"]
    assert (path / "weights").read_bytes() == b"new"
    assert list(run.checkpoints_dir.iterdir()) == [path]


def test_checkpoints_are_ordered_by_step(run: RunDirectory) -> None:
    paths = [save_checkpoint(run, step) for step in (50, 900, 10**13)]
    assert run.checkpoints() == paths


def test_a_checkpoint_removes_those_beyond_it_that_a_resume_passed_over(run: RunDirectory) -> None:
    save_checkpoint(run, 100, weights=b"1234")
    corrupted = save_checkpoint(run, 300, weights=b"1234")
    (corrupted / "weights").write_bytes(b"1235")
    new = save_checkpoint(run, 200, weights=b"1234")
    run.prune(1)
    assert list(run.checkpoints_dir.iterdir()) == [new]
    assert run.latest_whole() == (new, [])


def test_a_broken_checkpoint_is_passed_over_and_named(run: RunDirectory) -> None:
    good, truncated, flipped, bare = (
        save_checkpoint(run, step, weights=b"1234") for step in range(1, 5)
    )
    (truncated / "weights").write_bytes(b"12")
    (flipped / "weights").write_bytes(b"1235")
    (bare / "manifest.json").unlink()
    found, broken = run.latest_whole()
    assert found == good
    assert [entry.path for entry in broken] == [bare, flipped, truncated]
    assert "manifest.json is missing" in broken[0].reason
    assert "weights are corrupted" in broken[1].reason
    assert "2 bytes instead of 4" in broken[2].reason
    assert run.checkpoints() == [good, flipped]


def test_pruning_keeps_the_newest_whole_ones(run: RunDirectory) -> None:
    paths = [save_checkpoint(run, step, weights=b"1234") for step in range(1, 6)]
    (paths[4] / "weights").unlink()
    run.prune(2)
    assert sorted(run.checkpoints_dir.iterdir()) == paths[2:4]
    run.prune(9)
    assert run.checkpoints() == paths[2:4]
    with pytest.raises(ValueError, match="at least 1"):
        run.prune(0)


def test_a_reader_never_meets_a_half_removed_checkpoint(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = save_checkpoint(run, 1), save_checkpoint(run, 2)
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)
    run.prune(1)
    assert not first.exists()
    assert run.checkpoints() == [second]


def test_a_rolling_file_stays_in_the_newest_checkpoint_only(run: RunDirectory) -> None:
    paths = [save_checkpoint(run, step, weights=b"w", replay=b"r" * step) for step in (1, 2, 3)]
    run.drop_from_older("replay")
    run.drop_from_older("replay")
    assert [(path / "replay").exists() for path in paths] == [False, False, True]
    assert run.checkpoints() == paths
    assert [run.verify(path) for path in paths] == [None] * 3
