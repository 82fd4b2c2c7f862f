"""Classes out of what an emulator knows."""

import itertools
import math

import numpy as np
import pytest

from rlcnn.data.atari.labels import label_names, label_values, normalised_entropy, shuffle_half
from rlcnn.data.images import UNKNOWN


class TestValues:
    def test_few_values_are_a_class_each(self):
        train, test = np.array([7, 3, 7, UNKNOWN, 200]), np.array([200, 3, 4, UNKNOWN])
        labelling = label_values("Game/lives", train, test, max_classes=3)
        assert labelling.task == ("Game/lives", ("3", "7", "200"))
        assert labelling.train.tolist() == [1, 0, 1, UNKNOWN, 2]
        # 4 was never seen in training: a classifier cannot say it.
        assert labelling.test.tolist() == [2, 0, UNKNOWN, UNKNOWN]

    def test_many_values_fall_into_bins_of_equal_width(self):
        train = np.arange(10, 30)
        labelling = label_values("Game/x", train, np.array([10, 29, 5, 99]), max_classes=4)
        assert labelling.task.classes == ("10-14", "15-19", "20-24", "25-29")
        assert labelling.train.tolist() == [0] * 5 + [1] * 5 + [2] * 5 + [3] * 5
        assert labelling.test.tolist() == [0, 3, 0, 3]
        assert labelling.entropy == pytest.approx(1)

    def test_bins_that_training_leaves_empty_are_no_classes(self):
        train = np.array([0, 1, 2, 100])
        labelling = label_values("Game/x", train, np.array([50, 101]), max_classes=3)
        assert labelling.task.classes == ("0-33", "68-100")
        assert labelling.train.tolist() == [0, 0, 0, 1]
        assert labelling.test.tolist() == [UNKNOWN, 1]

    @pytest.mark.parametrize("max_classes", [2, 3, 7, 32])
    def test_every_value_lies_in_the_bin_that_names_it(self, max_classes):
        rng = np.random.default_rng(max_classes)
        train = rng.integers(3, 251, size=400)
        labelling = label_values("Game/x", train, train, max_classes=max_classes)
        assert len(labelling.task.classes) == max_classes
        widths = set()
        for value, label in zip(train, labelling.train, strict=True):
            low, high = map(int, labelling.task.classes[label].split("-"))
            assert low <= value <= high
            widths.add(high - low)
        assert max(widths) - min(widths) <= 1


def test_names_that_training_lacks_are_no_classes():
    names = ("negative", "zero", "positive")
    labelling = label_names("Game/reward", names, np.array([1, 2, UNKNOWN, 1]), np.array([0, 2]))
    assert labelling.task.classes == ("zero", "positive")
    assert labelling.train.tolist() == [0, 1, UNKNOWN, 0]
    assert labelling.test.tolist() == [UNKNOWN, 1]


def test_normalised_entropy():
    assert normalised_entropy(np.array([0, 1, 2, 3]), 4) == pytest.approx(1)
    assert normalised_entropy(np.array([0, 0, UNKNOWN]), 2) == 0
    assert normalised_entropy(np.array([UNKNOWN]), 2) == 0
    assert normalised_entropy(np.array([0, 0]), 1) == 0
    quarter = normalised_entropy(np.array([0, 0, 0, 1]), 2)
    assert quarter == pytest.approx(-(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25)))


class TestOrder:
    def test_half_of_the_whole_stacks_are_shuffled(self):
        stacks = np.arange(1, 4001).reshape(1000, 4)
        stacks[:100, 0] = 0
        stacks[100:200, 1] = stacks[100:200, 2]
        shuffled, labels = shuffle_half(stacks, [3, 0])
        assert (labels[:200] == UNKNOWN).all()
        np.testing.assert_array_equal(shuffled[:200], stacks[:200])
        assert (labels[200:] == 0).sum() == (labels[200:] == 1).sum() == 400
        changed = (shuffled != stacks).any(axis=1)
        np.testing.assert_array_equal(changed, labels == 0)
        np.testing.assert_array_equal(np.sort(shuffled, axis=1), np.sort(stacks, axis=1))

    def test_every_wrong_order_occurs(self):
        stacks = np.tile([1, 2, 3], (1000, 1))
        shuffled, labels = shuffle_half(stacks, [0, 0])
        orders, counts = np.unique(shuffled[labels == 0], axis=0, return_counts=True)
        assert {*map(tuple, orders.tolist())} == {*itertools.permutations([1, 2, 3])} - {(1, 2, 3)}
        # 100 of 500 are expected of each, with a standard deviation of 9.
        assert counts.min() > 60

    def test_the_seed_decides(self):
        stacks = np.arange(1, 401).reshape(100, 4)
        first = shuffle_half(stacks, [1, 0])
        for again, same in (
            (shuffle_half(stacks, [1, 0]), True),
            (shuffle_half(stacks, [1, 1]), False),
        ):
            assert all(map(np.array_equal, first, again)) == same
