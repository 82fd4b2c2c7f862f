"""Top-k accuracy, confusions and worst errors, on predictions counted by hand."""

from __future__ import annotations

import pytest
import torch
from support.property_tests import given, st

from rlcnn.data.images import UNKNOWN, Episodes, Task
from rlcnn.stats.accuracy import wilson_interval
from rlcnn.supervised.evaluation.metrics import (
    Evaluation,
    accuracy_interval,
    held_out_figures,
    right_by_task,
    topk_accuracy,
    topk_correct,
)

SCORES = torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2], [0.3, 0.3, 0.4], [0.9, 0.1, 0.0]])
LABELS = torch.tensor([1, 1, 0, 2])


def test_the_true_class_is_among_the_k_highest_scores() -> None:
    assert topk_correct(SCORES, LABELS, 1).tolist() == [True, False, False, False]
    assert topk_correct(SCORES, LABELS, 2).tolist() == [True, True, True, False]
    assert [topk_accuracy(SCORES, LABELS, k) for k in (1, 2, 3)] == [0.25, 0.75, 1.0]


@given(st.integers(1, 8), st.integers(1, 6), st.integers(1, 9), st.integers(0, 2**31))
def test_top_k_agrees_with_torch_where_no_scores_are_equal(
    classes: int, images: int, k: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.stack(
        [torch.randperm(classes, generator=generator).float() for _ in range(images)]
    )
    labels = torch.randint(classes, (images,), generator=generator)
    highest = scores.topk(min(k, classes)).indices
    expected = (highest == labels[:, None]).any(dim=1)
    assert torch.equal(topk_correct(scores, labels, k), expected)


def test_constant_scores_are_right_by_chance() -> None:
    labels = torch.arange(10)
    assert topk_accuracy(torch.zeros(10, 10), labels, 1) == 0.1
    assert topk_accuracy(torch.zeros(10, 10), labels, 5) == 0.5
    assert topk_accuracy(torch.full((10, 10), float("nan")), labels, 5) == 0


def test_images_of_unknown_class_are_left_out() -> None:
    labels = torch.tensor([1, UNKNOWN, 0, UNKNOWN])
    assert topk_accuracy(SCORES, labels, 1) == 0.5
    assert topk_accuracy(SCORES, labels, 3) == 1.0
    assert torch.tensor(topk_accuracy(SCORES, torch.full((4,), UNKNOWN))).isnan()


@pytest.fixture
def evaluation() -> Evaluation:
    return Evaluation(("ant", "bee", "cat"), LABELS, SCORES)


def test_rows_of_the_confusion_matrix_are_true_classes(evaluation: Evaluation) -> None:
    assert evaluation.confusion().tolist() == [[0, 0, 1], [1, 1, 0], [1, 0, 0]]


def test_the_worst_errors_have_the_least_probable_true_classes(
    evaluation: Evaluation,
) -> None:
    assert evaluation.worst(10) == [3, 1, 2]
    assert evaluation.worst(2) == [3, 1]


def test_figures_have_top_5_for_more_than_five_classes(evaluation: Evaluation) -> None:
    assert set(evaluation.figures()) == {"top1", "top1_interval"}
    wide = Evaluation(tuple("abcdef"), LABELS, torch.cat((SCORES, torch.zeros(4, 3)), dim=1))
    assert wide.figures()["top5"] == 1.0


def test_only_classes_that_occur_are_reported(evaluation: Evaluation) -> None:
    names = tuple(f"class {index}" for index in range(1000))
    probabilities = torch.zeros(3, 1000)
    probabilities[[0, 1, 2], [7, 7, 900]] = 1
    document = Evaluation(names, torch.tensor([7, 30, 900]), probabilities).to_json()
    assert document["images"] == 3
    assert document["confusion"] == {
        "class_indices": [7, 30, 900],
        "classes": ["class 7", "class 30", "class 900"],
        "counts": [[1, 0, 0], [1, 0, 0], [0, 0, 1]],
    }


def test_tasks_are_evaluated_one_by_one_and_together() -> None:
    tasks = (Task("six", tuple("abcdef")), Task("two", ("no", "yes")))
    logits = [torch.eye(6)[[0, 1, 2, 3]], torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]])]
    labels = torch.tensor([[0, 0], [1, 1], [0, UNKNOWN], [UNKNOWN, 1]])
    figures = held_out_figures(logits, labels, tasks)
    assert figures["test/top1/six"] == pytest.approx(2 / 3)
    assert figures["test/top1/two"] == pytest.approx(2 / 3)
    assert figures["test/top1"] == pytest.approx(2 / 3)
    # With two classes, the true one is always among the first five.
    assert figures["test/top5"] == figures["test/top5/six"] == 1
    assert "test/top5/two" not in figures
    right = right_by_task(logits, labels)
    assert right.tolist() == [[True, True], [True, False], [False, False], [False, True]]


def test_intervals_count_episodes_and_not_frames() -> None:
    episodes = Episodes(torch.zeros(120), torch.arange(4).repeat_interleave(30))
    right = torch.ones(120).bool()
    # 120 frames, but only 4 episodes.
    assert accuracy_interval(right, episodes) == wilson_interval(4, 4)
    assert accuracy_interval(~right, episodes) == wilson_interval(0, 4)
