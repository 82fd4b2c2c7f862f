"""One classifier beside another, image by image."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rlcnn.data.images import UNKNOWN, Episodes, Task
from rlcnn.stats.accuracy import paired_interval
from rlcnn.supervised.evaluation.gains import Gain, gains

ONE = (Task("class", ("a", "b")),)
TWO = (Task("one", ("a", "b")), Task("two", ("a", "b")))


def test_of_one_task_the_gain_is_the_difference_of_the_accuracies() -> None:
    own = torch.tensor([[1], [1], [1], [0]]).bool()
    other = torch.tensor([[1], [0], [0], [1]]).bool()
    labels = torch.tensor([[0], [1], [0], [0]])
    found = gains(own, other, labels, ONE)
    assert found.mean.value == 0.25
    assert found.mean.interval == pytest.approx(paired_interval([0, 1, 1, -1]))
    assert "tasks" not in found.to_json()


def test_what_is_not_known_counts_for_nothing_and_tasks_count_alike() -> None:
    own = torch.tensor([[1, 1], [1, 0], [1, 0], [1, 0]]).bool()
    other = torch.zeros(4, 2).bool()
    labels = torch.tensor([[0, 1], [1, UNKNOWN], [0, UNKNOWN], [UNKNOWN, UNKNOWN]])
    found = gains(own, ~own, labels, TWO)
    assert found.mean.value == 1
    found = gains(own, torch.tensor([[0, 1]] * 4).bool(), labels, TWO)
    assert {name: gain.value for name, gain in found.tasks.items()} == {"one": 1, "two": 0}
    assert found.mean.value == 0.5
    labels[:, 1] = UNKNOWN
    assert list(gains(own, other, labels, TWO).tasks) == ["one"]


def test_frames_of_one_game_tell_less_than_as_many_images() -> None:
    random = np.random.default_rng(0)
    # Twelve games of 50 frames, of which a game is either seen right or not.
    right = torch.from_numpy(np.repeat(random.random(12) < 0.6, 50))[:, None]
    labels = torch.zeros(600, 1, dtype=torch.int64)
    played = torch.arange(12).repeat_interleave(50)
    nothing = torch.zeros_like(right)
    alone = gains(right, nothing, labels, ONE).mean
    together = gains(right, nothing, labels, ONE, Episodes(torch.zeros(600), played)).mean
    assert alone.value == together.value
    assert alone.interval is not None
    assert together.interval is not None
    widths = [upper - lower for lower, upper in (alone.interval, together.interval)]
    assert widths[1] > 5 * widths[0]


def test_a_gain_is_printed_in_points() -> None:
    assert str(Gain(0.1231, (0.101, 0.1452))) == ("+12.31 points (95% interval +10.10 to +14.52)")
    assert str(Gain(-0.02, None)) == "-2.00 points (too few games played for an interval)"
