"""A run's metrics: no half row, no row twice."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
from support.property_tests import given, settings, st
from support.run_files import CONFIG

from envs.errors import UserError
from rlcnn.runs.directory import RunDirectory


def test_metrics_come_back_as_written_and_stay_json(run: RunDirectory) -> None:
    run.append_metrics(1, {"loss": 0.1, "games": 3, "video/eval": "videos/1.mp4"})
    run.append_metrics(2, {"loss": math.nan, "best": -math.inf})
    assert run.metrics() == [
        {"step": 1, "loss": 0.1, "games": 3, "video/eval": "videos/1.mp4"},
        {"step": 2, "loss": None, "best": None},
    ]
    for line in run.metrics_path.read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)


@settings(max_examples=50)
@given(steps=st.lists(st.integers(0, 50)), cut=st.integers(0, 50), half=st.binary(max_size=20))
def test_a_resume_keeps_exactly_the_rows_up_to_its_step(
    steps: list[int], cut: int, half: bytes
) -> None:
    with (
        tempfile.TemporaryDirectory() as directory,
        RunDirectory.create(directory, CONFIG) as run,
    ):
        for number, step in enumerate(steps):
            run.append_metrics(step, {"number": number, "third": number / 3})
        before = run.metrics()
        with run.metrics_path.open("ab") as file:
            file.write(half.replace(b"\n", b""))
        run.truncate_metrics(cut)
        assert run.metrics() == [row for row in before if row["step"] <= cut]
        run.append_metrics(cut, {"again": 1})
        assert len(run.metrics()) == sum(step <= cut for step in steps) + 1


def test_a_corrupted_row_is_named_and_the_file_left_alone(run: RunDirectory) -> None:
    run.append_metrics(1, {})
    run.metrics_path.write_text('{"step": 1}\n{"loss": 2}\n{"step": 3}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl is corrupted at line 2"):
        run.truncate_metrics(1)
    assert run.metrics_path.read_text().count("\n") == 3


def test_a_row_that_does_not_fit_leaves_no_half_behind(
    run: RunDirectory, largest_file: Callable[[int], AbstractContextManager[None]]
) -> None:
    run.append_metrics(1, {"loss": 1.0})
    with largest_file(100), pytest.raises(UserError, match=r"cannot write .*metrics\.jsonl"):
        run.append_metrics(2, {"name": "x" * 200})
    assert run.metrics_path.read_bytes() == b'{"step": 1, "loss": 1.0}\n'


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has /dev/full")
def test_a_full_disk_is_named_when_a_row_is_appended(run: RunDirectory) -> None:
    run.metrics_path.symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"cannot write .*metrics\.jsonl: the disk is full"):
        run.append_metrics(1, {"loss": 1.0})
